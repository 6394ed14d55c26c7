"""The only door for applications: assigns variants and answers predictions.

Owns experiments (SQL) and the journal of predictions; reads models; writes topics predictions and experiments.
"""
