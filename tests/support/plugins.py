"""Temporarily installed Python packages, to test plugins."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from baker.core.plugins import installed


def install_package(package: Path, target: Path) -> Path:
    """Install the package in the directory `package` into `target` with pip; returns `target`. Needs no network."""
    copy = target.with_name(f"{target.name}.source")  # setuptools leaves its work beside what it builds
    shutil.copytree(package, copy)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, copy], check=True, capture_output=True)
    return target


def write_distribution(directory: Path, name: str, group: str, entries: Mapping[str, str]) -> None:
    """Write the metadata of an installed package: its name and its entry points."""
    info = directory / f"{name.replace('-', '_')}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    lines = [f"{kind} = {value}\n" for kind, value in entries.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")


@contextmanager
def on_path(directory: Path) -> Iterator[None]:
    """Add `directory`, with its distributions (*.dist-info), to the import path."""
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    installed.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        importlib.invalidate_caches()
        installed.cache_clear()
