"""Where tiles live: a Protocol, Redis, and memory for tests."""
