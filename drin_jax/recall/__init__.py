"""What each first stage finds."""
