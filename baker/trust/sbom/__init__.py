"""Bills of materials: the software in an image."""
