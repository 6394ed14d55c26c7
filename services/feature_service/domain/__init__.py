"""Rules and mathematics of online features: events in, tiles in rings, windows out. No I/O, no clock."""
