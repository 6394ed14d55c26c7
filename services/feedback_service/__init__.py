"""Owns feedback and live performance: what became of each prediction, and which variant does better.

Reads the topics `predictions`, `feedback` and `experiments`; writes `feedback`, `verdicts`, `parked`, the snapshots in
Redis, and the verdicts in its database.
"""
