"""A knowledge base from the command line."""
