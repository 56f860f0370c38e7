"""Machines for people: ephemeral ones, shells, and images committed from them."""
