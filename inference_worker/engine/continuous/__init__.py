"""Continuous batching for M2M100: greedy and beam search over slots that refill as sentences end.

``docs/engine.md`` explains it with a picture; ``engine.py`` is where to start reading.
"""
