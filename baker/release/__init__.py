"""Bring images to where they run: channels, releases to targets, rollbacks, revocations, and the retention of published AMIs."""
