"""Measurements, each a ratio to a control in the same run."""
