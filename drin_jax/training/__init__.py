"""The training step, its batches and its loop."""
