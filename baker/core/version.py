"""The version of this package, in a module that every floor can import."""

from __future__ import annotations

VERSION = "0.1.0"
