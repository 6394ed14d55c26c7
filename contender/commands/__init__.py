"""The commands of `contender`, one module per group."""
