"""Models to try Contender with."""
