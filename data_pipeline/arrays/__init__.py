"""Arrays on disk: `.npy` files that are whole or refused, and folders of them in the making."""
