"""What trained methods share."""
