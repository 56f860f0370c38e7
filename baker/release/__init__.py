"""From an image to where it runs: channels, releases to targets, roll-back, and the end of what nothing uses any more."""
