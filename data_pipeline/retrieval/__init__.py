"""First stages: candidates of mentions."""
