import data_pipeline  # noqa: F401  for what it does before a command

__version__ = "0.1.0"
