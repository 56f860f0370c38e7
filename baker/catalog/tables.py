"""The tables of models.py, loaded when the first of them is used: reading the catalog needs none, and SQLAlchemy takes long to load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baker.catalog.models import (
        Attestation,
        Base,
        Build,
        Channel,
        ChannelEvent,
        Evidence,
        Image,
        ImageBlob,
        Journal,
        Publication,
        Rebuild,
        Release,
        Revocation,
        Step,
        Test,
    )

__all__ = [
    "Attestation",
    "Base",
    "Build",
    "Channel",
    "ChannelEvent",
    "Evidence",
    "Image",
    "ImageBlob",
    "Journal",
    "Publication",
    "Rebuild",
    "Release",
    "Revocation",
    "Step",
    "Test",
]


def __getattr__(name: str) -> Any:
    from baker.catalog import models

    if name not in __all__:
        raise AttributeError(name)
    return getattr(models, name)
