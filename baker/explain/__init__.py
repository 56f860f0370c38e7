"""Comparison of images, and the origin of their files and packages."""
