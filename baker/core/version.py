"""The version of this package, where everything below the package's face can read it."""

from __future__ import annotations

VERSION = "0.1.0"
