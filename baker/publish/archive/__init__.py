"""An image with everything that is on record of it, as one file that another host can take in."""
