"""Archives: an image with all its records as one file, which another host can import."""
