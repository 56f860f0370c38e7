"""What a rebuild starts from: the bytes on record, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baker.errors import HostError, NotFoundError
from baker.reproduce.rebuild import check_store
from baker.store.directory import DirectoryStore
from test_catalog import make_build, make_image


def test_every_changed_blob_is_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    disk, inputs, body = (store.add_bytes(data) for data in (b"disk", b"inputs", b"body"))
    build = replace(make_build(), evidence={"inputs": inputs, "body:00": body})
    image = replace(make_image(build), chain=(disk,))
    check_store(image, build, store)
    for digest in (disk, body):
        store.path(digest).chmod(0o600)
        store.path(digest).write_bytes(b"other")
    with pytest.raises(HostError) as caught:
        check_store(image, build, store)
    assert f"disk 0 of image {image.id}: {disk}" in str(caught.value)
    assert f"evidence 'body:00' of build {build.id}: {body}" in str(caught.value)
    assert inputs not in str(caught.value)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    gone = store.add_bytes(b"gone")
    build = replace(make_build(), evidence={"inputs": gone})
    store.delete(gone)
    with pytest.raises(NotFoundError, match=gone):
        check_store(replace(make_image(build), chain=()), build, store)
