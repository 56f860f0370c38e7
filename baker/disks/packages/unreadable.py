"""The error that the readers of package databases share."""

from __future__ import annotations


class UnreadableDatabase(Exception):
    """A package database is damaged, or is in a form that bake does not read. `str(error)` is the reason."""
