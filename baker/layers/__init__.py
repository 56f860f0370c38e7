"""Layers: machines kept as they were right after a step, so that a later build goes on from there."""
