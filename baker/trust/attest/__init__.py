"""Signed statements about images, and the checks that hold them against what is there."""
