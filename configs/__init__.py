"""Cards: what is trained on what, and for how long."""
