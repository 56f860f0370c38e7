"""Layers: snapshots of a build's machine right after a step, from which a later build continues."""
