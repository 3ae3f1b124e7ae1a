"""Comparison with arrays of the authors' program."""
