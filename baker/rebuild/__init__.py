"""Makes an image again from its record, and compares the two."""
