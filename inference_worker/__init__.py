"""The model tier: reads records, turns them into sentences, keeps the engine full, and completes
each record once all of its sentences are translated."""
