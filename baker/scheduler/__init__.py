"""Runs the builds of one run side by side, each after those that it needs."""
