"""Machines of all builders, and the SSH connection to them."""
