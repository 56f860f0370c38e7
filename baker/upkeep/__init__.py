"""Keeps a home in order: sweep, garbage collection, disk usage, doctor."""
