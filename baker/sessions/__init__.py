"""Interactive machines: ephemeral machines, shells, and images committed from them."""
