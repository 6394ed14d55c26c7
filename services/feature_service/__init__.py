"""Feature definitions and their values, online and in training sets.

Reads topic entity-events; writes tiles to Redis; its API is the one writer of entity-events besides users' producers.
"""
