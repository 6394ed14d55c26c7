"""Feature definitions: what training sets and online values are computed from, by one formula.

A window of length W with hop h has, at time t, the events in [floor(t/h)*h - W + h, t): tiles of width h, merged. An
event at exactly t is unseen, so when t lies on a tile's boundary the tile that begins there contributes nothing.
"""
