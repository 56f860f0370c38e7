"""What software is in an image, as a bill of materials."""
