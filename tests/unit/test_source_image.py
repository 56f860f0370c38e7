"""The source `image`: what the catalog and the store have, and what to do when they have not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError, SourceError
from baker.sources.base import Context
from baker.sources.registry import for_spec
from baker.template.model import ImageSource
from tests.support.sources import context_in


@dataclass
class OneImage:
    """A catalog of one image."""

    record: ImageRecord

    def resolve(self, text: str) -> ImageRecord:
        if text.partition("@")[0] != self.record.name:
            raise NotFoundError(f"no image {text!r}")
        return self.record

    def check_usable(self, image: ImageRecord, what_for: str) -> None:
        """None of its images is revoked."""


def record(*chain: str) -> ImageRecord:
    return ImageRecord(
        id="a00000000001", name="base", version="1.2.0", digest="sha256:" + "d" * 64, fingerprint="f" * 64, parent=None,
        created="2026-11-22T10:00:00Z", size=1, virtual_size=4096, chain=chain, verified=True, build="b1", ssh_username="admin",
    )  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with context_in(tmp_path, catalog=OneImage(record())) as context:
        catalog = context.catalog
        catalog.record = record(context.store.add_bytes(b"delta"), context.store.add_bytes(b"below"))  # type: ignore[attr-defined]
        yield context


def test_an_image_of_the_catalog(context: Context) -> None:
    spec = ImageSource(image="base@^1.0")
    found = for_spec(spec).fetch(spec, context)
    assert for_spec(spec).peek(spec, context) == found
    assert (found.parent, found.title, found.digest, found.ssh_username) == ("a00000000001", "base@1.2.0", "sha256:" + "d" * 64, "admin")
    assert found.disk.path.read_bytes() == b"delta"
    assert found.disk.virtual_size == 4096
    assert len(found.chain) == 2
    assert found.pins == {"image": "base", "version": "1.2.0", "id": "a00000000001", "digest": "sha256:" + "d" * 64}


def test_a_missing_image_names_the_template_that_bakes_it(context: Context, tmp_path: Path) -> None:
    spec = ImageSource(image="web@1.0")
    assert for_spec(spec).peek(spec, context) is None
    with pytest.raises(NotFoundError) as failure:
        for_spec(spec).fetch(spec, context)
    assert "bake images" in failure.value.hint
    (tmp_path / "web.yaml").write_text("schema: 1\n")
    with pytest.raises(NotFoundError) as failure:
        for_spec(spec).fetch(spec, context)
    assert f"bake build {tmp_path / 'web.yaml'}" in failure.value.hint
    (tmp_path / "other.yaml").write_text("schema: 1\n")
    spec = ImageSource(image="web@1.0", template=Path("other.yaml"))
    with pytest.raises(NotFoundError, match="web") as failure:
        for_spec(spec).fetch(spec, context)
    assert "other.yaml" in failure.value.hint


@pytest.mark.parametrize("position", [0, 1])
def test_a_store_that_lost_a_part_is_told(context: Context, position: int) -> None:
    spec = ImageSource(image="base")
    chain = for_spec(spec).fetch(spec, context).chain
    context.store.delete(chain[position])
    with pytest.raises(SourceError, match=f"base@1.2.0 .a00000000001. .*{chain[position]}") as failure:
        for_spec(spec).fetch(spec, context)
    assert failure.value.code == "source.image-incomplete"
    assert "bake rm a00000000001" in failure.value.hint
