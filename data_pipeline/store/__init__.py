"""The feature store of a data set."""
