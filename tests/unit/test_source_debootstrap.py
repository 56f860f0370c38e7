"""The parts of a bootstrap that need no bootstrap: keys, layout, package lists, what goes into the root."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.core.errors import HostError, SourceError
from baker.sources import layout, machine_files
from baker.sources.base import Context
from baker.sources.cache_index import Index, kept_blobs
from baker.sources.debootstrap import Debootstrap, inputs_key
from baker.sources.layout import MIB, SECTOR, Layout, Names
from baker.template.model import DebootstrapSource
from tests.support.sources import context_in

SPEC = DebootstrapSource(suite="trixie")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with context_in(tmp_path) as context:
        yield context


# --- where partitions lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("used", "size"), [(0, 2048), (300, 2048), (1100, 2048), (1200, 2304), (4000, 5888)])
def test_disk_size(used: int, size: int) -> None:
    assert Layout.for_content(used * MIB).size == size * MIB


@pytest.mark.parametrize("used", [0, 1200 * MIB, 4000 * MIB])
def test_sfdisk_accepts_the_layout_as_it_is(tmp_path: Path, used: int) -> None:
    """sfdisk moves nothing, and the root partition is last and ends where the disk does."""
    made = Layout.for_content(used)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(made.size)
    subprocess.run(["sfdisk", "-q", disk], input=made.script(Names.of("x")), text=True, check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True).stdout)["partitiontable"]
    parts = [(part["start"], part["size"], part["name"]) for part in table["partitions"]]
    assert parts[0] == (2048, 2048, "bios")
    assert parts[1] == (4096, layout.ROOT_START - 4096, "esp")
    assert parts[2] == (layout.ROOT_START, made.root_sectors, "root")
    end = (layout.ROOT_START + made.root_sectors) * SECTOR
    assert made.size - end == MIB
    assert table["id"].lower() == Names.of("x").disk


def test_names_depend_on_the_seed_alone() -> None:
    assert Names.of("a") == Names.of("a")
    one, other = dataclasses.astuple(Names.of("a")), dataclasses.astuple(Names.of("b"))
    assert len({*one, *other}) == 12


def test_the_loader_points_to_its_own_sectors(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xee" * (3 * MIB))
    core = bytearray(os.urandom(3 * SECTOR + 100))
    layout.install_bios_loader(disk, os.urandom(512), bytes(core))
    data = disk.read_bytes()
    assert int.from_bytes(data[0x5C:0x64], "little") == 2048
    assert data[440:512] == b"\xee" * 72, "the partition table behind boot.img stays"
    first = data[2048 * SECTOR : 2049 * SECTOR]
    assert int.from_bytes(first[500:508], "little") == 2049
    assert int.from_bytes(first[508:510], "little") == 3
    assert first[510:] == core[510:512], "the load segment stays"
    assert data[2049 * SECTOR : 2052 * SECTOR] == bytes(core[SECTOR:]).ljust(3 * SECTOR, b"\0")


def test_a_loader_that_is_too_large_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(3 * MIB))
    with pytest.raises(HostError, match="2049 sectors") as failure:
        layout.install_bios_loader(disk, bytes(512), bytes(2048 * SECTOR + 1))
    assert failure.value.code == "host.grub-too-large"
    assert disk.read_bytes() == bytes(3 * MIB)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_every_word_of_the_template_is_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"one")
    others = [
        DebootstrapSource(suite="bookworm"),
        DebootstrapSource(suite="trixie", packages=("vim",)),
        DebootstrapSource(suite="trixie", components=("main", "contrib")),
        DebootstrapSource(suite="trixie", variant="apt"),
        DebootstrapSource(suite="trixie", hostname="box"),
        DebootstrapSource(suite="trixie", mirror="http://mirror.example/debian"),
        DebootstrapSource(suite="trixie", keyring=Path("keys")),
    ]
    keys = {inputs_key(spec, tmp_path) for spec in (SPEC, *others)}
    assert len(keys) == 8
    (tmp_path / "keys").write_bytes(b"two")
    assert inputs_key(others[-1], tmp_path) not in keys, "the content of the keyring counts"
    assert inputs_key(SPEC, tmp_path / "elsewhere") in keys


def test_a_missing_keyring_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="keys-of-nobody") as failure:
        inputs_key(DebootstrapSource(suite="trixie", keyring=Path("keys-of-nobody")), tmp_path)
    assert failure.value.code == "source.keyring-missing"


def test_peek_finds_what_was_kept_and_forgets_what_is_gone(context: Context) -> None:
    source, key = Debootstrap(), inputs_key(SPEC, context.base_dir)
    assert source.peek(SPEC, context) is None
    blob = context.store.add_bytes(b"disk")
    index = Index(context.home.cache / "bootstraps")
    index.write(
        key, {"digest": "sha256:" + "a" * 64, "blob": blob, "virtual_size": 2048, "created": "2026-11-22T10:00:00Z", "packages": {}}
    )
    found = source.peek(SPEC, context)
    assert found is not None
    assert (found.digest, found.disk.virtual_size, found.chain, found.ssh_username) == ("sha256:" + "a" * 64, 2048, (blob,), "root")
    assert found.pins["inputs"] == key
    context.store.delete(blob)
    assert source.peek(SPEC, context) is None


def test_a_torn_index_entry_counts_as_none(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.write("0" * 64, {"digest": "x"})
    (tmp_path / f"{'0' * 64}.json").write_text('{"digest"')
    assert index.read("0" * 64) is None
    (tmp_path / f"{'0' * 64}.json").write_text("[]")
    assert index.read("0" * 64) is None
    with pytest.raises(ValueError, match="not a key"):
        index.read("../../etc/passwd")


def test_sources_say_which_blobs_they_would_find_again(tmp_path: Path) -> None:
    assert kept_blobs(tmp_path) == frozenset()
    Index(tmp_path / "bootstraps").write("0" * 64, {"blob": "sha256:" + "a" * 64})
    Index(tmp_path / "urls").write("1" * 64, {"blob": "sha256:" + "b" * 64})
    (tmp_path / "urls" / f"{'2' * 64}.json").write_text("torn")
    assert kept_blobs(tmp_path) == {"sha256:" + "a" * 64, "sha256:" + "b" * 64}


# --- what is in the root ------------------------------------------------------------------------------------------


def test_a_kernel_of_ones_own_replaces_ours() -> None:
    assert machine_files.KERNEL in machine_files.packages(("vim",))
    chosen = machine_files.packages(("linux-image-amd64", "vim", "dbus"))
    assert machine_files.KERNEL not in chosen
    assert chosen.count("dbus") == 1
    assert {"linux-image-amd64", "vim", "openssh-server"} <= set(chosen)


def test_machine_files_are_filled_in_and_whole(tmp_path: Path) -> None:
    names = Names.of("seed")
    machine_files.write_tar(tmp_path / "a.tar", names, 1_700_000_000)
    machine_files.write_tar(tmp_path / "b.tar", names, 1_700_000_000)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        texts = {entry.name: tar.extractfile(entry).read().decode() for entry in tar}  # type: ignore[union-attr]
        assert all((entry.uid, entry.gid, entry.mtime) == (0, 0, 1_700_000_000) for entry in tar)
    assert not [name for name, text in texts.items() if "@ROOT" in text or "@ESP" in text]
    assert f"UUID={names.filesystem} / ext4" in texts["./etc/fstab"]
    assert f"root=UUID={names.filesystem}" in texts["./boot/grub/grub.cfg"]


@pytest.mark.parametrize("script", sorted(machine_files.DIRECTORY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
