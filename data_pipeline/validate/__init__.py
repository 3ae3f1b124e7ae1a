"""What raw files hold, and what is wrong with them."""
