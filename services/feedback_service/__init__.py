"""Live performance per variant.

Writes topic feedback; reads topics predictions, feedback and experiments; keeps aggregates, results and the dashboard.
"""
