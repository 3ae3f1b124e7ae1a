"""Link mentions from the command line."""
