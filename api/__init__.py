"""The HTTP tier: takes requests in, hands their records to the broker, waits, and answers. It never
meets the model."""
