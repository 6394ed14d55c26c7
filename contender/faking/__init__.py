"""What FakeContender is made of: assignment, checks, and calls without a socket."""
