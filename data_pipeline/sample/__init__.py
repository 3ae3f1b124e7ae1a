"""The embedded sample: a small world made from a seed."""
