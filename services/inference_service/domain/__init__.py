"""Rules of models: which files are run, and how named columns become tensors."""
