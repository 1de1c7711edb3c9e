"""Engines: everything that knows about tensors, behind the protocol in ``engine.protocol``."""
