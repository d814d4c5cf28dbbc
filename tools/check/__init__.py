"""Look at data, recipe and machine before a training: python -m tools.check."""
