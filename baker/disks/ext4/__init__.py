"""Reads and lays out ext4 file systems."""
