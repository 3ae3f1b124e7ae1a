"""Pictures: decoded, scaled, and their features read."""
