"""Which module serves which kind of source. A new kind is a new module, a model in template/model.py and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from baker.sources.base import Source
from baker.template.ec2 import AmiSource, SourceAmiFilter, SsmParameterSource
from baker.template.model import DebootstrapSource, FileSource, ImageSource, UrlSource

SOURCES: dict[type[Any], str] = {
    DebootstrapSource: "baker.sources.debootstrap:Debootstrap",
    FileSource: "baker.sources.file:File",
    UrlSource: "baker.sources.url:Url",
    ImageSource: "baker.sources.image:Image",
    AmiSource: "baker.sources.ami:AmiById",
    SourceAmiFilter: "baker.sources.ami:AmiByFilter",
    SsmParameterSource: "baker.sources.ami:AmiByParameter",
}


def for_spec(spec: Any) -> Source:
    """The source that serves a template's `source`, by its type. Its module loads now and not before."""
    module, _, name = SOURCES[type(spec)].partition(":")
    found: Source = getattr(import_module(module), name)()
    return found
