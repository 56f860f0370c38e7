"""The kinds of sources. A new kind is a module here, a model with its `kind`, and a key of `source` in template/language.py."""

from __future__ import annotations

from baker.core.plugins import Plugins
from baker.sources.base import Source
from baker.template.model import AnySource

BUILT_IN = {
    "debootstrap": "baker.sources.debootstrap:Debootstrap",
    "file": "baker.sources.file:File",
    "url": "baker.sources.url:Url",
    "image": "baker.sources.image:Image",
    "ami": "baker.sources.ami:AmiById",
    "source_ami_filter": "baker.sources.ami:AmiByFilter",
    "ssm_parameter": "baker.sources.ami:AmiByParameter",
}
# a template's `source` has fixed keys, so packages cannot add kinds: there is no entry-point group
SOURCES: Plugins[Source] = Plugins("", "source", BUILT_IN, instances=True)


def for_spec(spec: AnySource) -> Source:
    """The kind of source for the `source` of a template."""
    return SOURCES.get(spec.kind)
