"""The contract between the tiers: Redis keys, wire types, the Redis functions, and the parties
that use them: producer and waiter in the API tier, consumer and leases in the model tier."""
