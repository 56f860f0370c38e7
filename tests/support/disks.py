"""Disks for tests, and file trees with package databases for them."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
from pathlib import Path

from baker.core.model import Disk
from baker.disks.rootfs import open_root

# the header of a package as rpm 4.18 itself wrote it into rpmdb.sqlite: demo-tool 2:1.4-3.fc41, MIT AND BSD-3-Clause
RPM_HEADER = base64.b64decode("""
AAAAKQAAAnwAAAA/AAAABwAAAdkAAAAQAAAAZAAAAAgAAAAAAAAAAQAAA+gAAAAGAAAAAgAAAAEAAAPpAAAABgAAAAwAAAABAAAD6gAAAAYAAAAQAAAAAQAAA+sAAAAEAAAAGAAA
AAEAAAPsAAAACQAAABwAAAABAAAD7QAAAAkAAAAsAAAAAQAAA+4AAAAEAAAANAAAAAEAAAPvAAAABgAAADgAAAABAAAD8QAAAAQAAAA8AAAAAQAAA/YAAAAGAAAAQAAAAAEAAAP4
AAAACQAAAFUAAAABAAAD/QAAAAYAAABhAAAAAQAAA/4AAAAGAAAAZwAAAAEAAAQUAAAABgAAAG4AAAABAAAEFwAAAAgAAACLAAAAAQAABBgAAAAEAAAAmAAAAAMAAAQZAAAACAAA
AKQAAAADAAAEGgAAAAgAAADzAAAAAwAABCgAAAAGAAABCQAAAAEAAARYAAAABAAAARAAAAABAAAEWQAAAAgAAAEUAAAAAQAABGIAAAAGAAABIQAAAAEAAARkAAAABgAAASgAAAAB
AAAEZQAAAAYAAAEtAAAAAQAABGYAAAAGAAABMgAAAAEAAARsAAAABgAAATQAAAABAAATkwAAAAQAAAFIAAAAAQAAE8YAAAAGAAABTAAAAAEAABPkAAAACAAAAVIAAAABAAAT5QAA
AAQAAAGUAAAAAQAAE+kAAAAIAAABmAAAAAEAAAEBAAAABAAAAewAAAABAAABBQAAAAcAAAHwAAAAEAAAAQ0AAAAGAAACAAAAAAEAAAERAAAABgAAAikAAAABAAAD8AAAAAQAAAJs
AAAAAQAABBYAAAAEAAACcAAAAAEAAARnAAAABAAAAnQAAAABAAAEaAAAAAQAAAJ4AAAAAUMAZGVtby10b29sADEuNAAzLmZjNDEAAAAAAAJBIGRlbW9uc3RyYXRpb24ARGVtby4A
AABrB2Didm0AAAAAAABNSVQgQU5EIEJTRC0zLUNsYXVzZQBVbnNwZWNpZmllZABsaW51eABub2FyY2gAZGVtby10b29sLTEuNC0zLmZjNDEuc3JjLnJwbQBkZW1vLXRvb2wAAAAA
AQAACgEAAAoBAAAKcnBtbGliKENvbXByZXNzZWRGaWxlTmFtZXMpAHJwbWxpYihGaWxlRGlnZXN0cykAcnBtbGliKFBheWxvYWRGaWxlc0hhdmVQcmVmaXgpADMuMC40LTEANC42
LjAtMQA0LjAtMQA0LjE4LjAAAAAACDI6MS40LTMuZmM0MQAtTzIgLWcAY3BpbwBnemlwADkAbm9hcmNoLWRlYmlhbi1saW51eAAAAAAIdXRmLTgAYWYzOWUxYzE5YWY0NzhhZWY3
YTAzYmU5OGVmYTlkOWJhYTIyOGZiOWY5M2UzODQyZDZkN2IxNGExNDY1YTQ1OQAAAAAACDIzZDA0MjJiNGZlYTI4Zjc3MWU4NzI3NDFiYjM3MDc5MGIzY2QwNTM4ZWFmYjQ2MTIz
M2U4MjBiODRiNTdhMmUAAAAAPwAAAAf///3wAAAAEAAAAAAABDl3HTESrFVlGbj9ymDwVtxXOTQ5NDE5ZGM3YTdkNGQ5ZjM5OWIxNjBiNTRhYzRhYjcwNzQ1NjNmNwBkMGFlYTU1
NjA5NTIwMDY1NmIyMjNhYTg1ZTI2YWNlM2Q2YzM5NDIwMjYzODU3YmFlNzlmOWYyZDdjMzVkNjRhAAAAawdg4gAAAHwAAAADawdg4g==
""")

APK = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl.so\n\nP:busybox\nV:1.36.1-r2\nA:x86_64\nL:GPL-2.0-only\n\n"


def rpm_database(path: Path, *headers: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
    connection.close()


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def disk_of(tree: Path, place: Path) -> Disk:
    """A raw disk with an ext4 of this tree."""
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(place), "16M"], check=True)
    return Disk(place, "raw", 16 << 20)


def create_qcow2(path: Path, size: int) -> Disk:
    """A new empty qcow2 of `size` bytes."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size)], check=True)
    return Disk(path, "qcow2", size)


def root_file(disk: Disk, path: str) -> bytes | None:
    """The bytes of one file of a disk; None where there is none. UnsupportedFilesystem as `open_root`."""
    with open_root(disk) as root:
        return root.read(path)
