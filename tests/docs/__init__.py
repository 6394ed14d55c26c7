"""The pages' own blocks, run; a package, so that its stack stops when its last test has ended."""
