"""Owns feedback and live performance: what became of each prediction, and which variant does better.

Reads the topics `predictions`, `feedback` and `experiments`; writes `feedback`, `parked` and the snapshots in Redis.
"""
