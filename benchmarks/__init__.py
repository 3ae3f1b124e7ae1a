"""Each file measures one thing and prints ours, the peer's, the ratio and the limit."""
