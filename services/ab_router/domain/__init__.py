"""Rules of experiments: who is assigned what, and what an experiment may be."""
