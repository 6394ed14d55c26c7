"""Worlds that a verdict must withstand, simulated on the product's own statistics."""
