"""The authors' preprocessed arrays, imported."""
