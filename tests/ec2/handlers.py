"""What is put over moto's classes."""

from __future__ import annotations


def install() -> None:
    """Once per process."""


def end() -> None:
    """Nothing stays behind."""
