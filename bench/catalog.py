"""Measures commands that read a large catalog: `python -m bench.catalog [--images N] [--runs N] [--work DIR]`

Makes a catalog of images in chains of ten (100,000 by default) with their builds, steps, evidence, channels and some revocations, and for
one chain the evidence that `bake why` reads. Then it runs each command as a process, and prints the median and the maximum of its
seconds, and the median of the ratio to a `python -c pass` just before. The goal is 0.5 s each.
The catalog is removed at the end, except with --work, which also reuses it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, delete, insert

from baker.artifacts import changes
from baker.artifacts.codecs import pack_packages, write_manifest
from baker.catalog import tables
from baker.catalog.catalog import Catalog
from baker.core.home import Home
from baker.core.model import FileEntry, Package, PackageList
from baker.store.directory import DirectoryStore

ROOT = Path(__file__).resolve().parent.parent
DEPTH = 10  # images of a chain
BATCH = 10_000
GOAL = 0.5  # seconds
FILES = 30_000  # in the root of the chain that has evidence: as many as a small Debian has
CHANGED = 1_000  # files that each of its builds changed
TEMPLATE = "schema: 1\nname: {name}\nversion: {version}\n" + "# a line of a template, as long as lines of templates are\n" * 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.catalog", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000, metavar="N", help="how many images (default: 100000)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="how often each command is run (default: 5)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="make the catalog in DIR, or use the one that is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bake-bench-catalog-") as temporary:
        directory = args.work or Path(temporary)
        home = Home.from_environment({"BAKE_HOME": str(directory)})
        if not home.catalog.exists():
            began = time.monotonic()
            fill(home.catalog, args.images)
            add_evidence(home, args.images // DEPTH // 2)
            print(f"made a catalog of {args.images} images in {time.monotonic() - began:.0f} s, {home.catalog.stat().st_size >> 20} MiB")
        slow = [measure(directory, command, args.runs) for command in commands(args.images)]
    return int(max(slow) >= GOAL)


def commands(images: int) -> Iterator[list[str]]:
    """The commands to measure: with a name of few versions and of thousands, ids, digests, and references that do not exist."""
    chain = images // DEPTH // 2
    name, identifier = name_of(chain, DEPTH - 1), image_id(chain, DEPTH - 1)
    yield ["--version"]
    yield ["history", name]
    yield ["history", identifier]
    yield ["images", "--name", f"{name[:-2]}*"]
    yield ["images", "--label", f"chain=c{chain}"]
    yield ["images", "--name", "debian-13", "--label", f"chain=c{chain}", "--json"]
    yield ["show", name]
    yield ["show", "debian-13"]
    yield ["resolve", f"{name}@prod", "--kind", "id"]
    yield ["resolve", f"{name}@^1.0", "--kind", "digest"]
    yield ["resolve", "debian-13@~13.2", "--kind", "id"]
    yield ["resolve", digest_of(identifier)[:20], "--kind", "id"]
    yield ["resolve", identifier[:10], "--kind", "id"]
    yield ["resolve", "no-such-image", "--kind", "id"]
    exact = f"{name}@{version_of(chain, DEPTH - 1)}"
    yield ["why", exact, f"/usr/share/level-{DEPTH // 2}/file-7"]
    yield ["why", exact, "/usr/share/level-0/file-7"]
    yield ["why", exact, "--package", "package-7"]


def measure(home: Path, command: list[str], runs: int) -> float:
    """The median of a command's times in seconds, without the first run, which has cold caches."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("BAKE_")} | {"BAKE_HOME": str(home)}
    times, ratios = [], []
    for _ in range(runs + 1):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], env=env, check=True)
        least, began = time.monotonic() - began, time.monotonic()
        ended = subprocess.run([sys.executable, "-m", "baker", *command], env=env, capture_output=True, cwd=ROOT, check=False)
        times.append(time.monotonic() - began)
        ratios.append(times[-1] / least)
        if ended.returncode not in (0, 5 if "no-such-image" in command else 0):
            raise SystemExit(f"bake {' '.join(command)}: {ended.stderr.decode()}")
    median = statistics.median(times[1:])
    ratio = statistics.median(ratios[1:])
    print(f"{median:7.3f} {max(times[1:]):7.3f} {ratio:5.1f} x  bake {' '.join(command)}  ({len(ended.stdout)} bytes)", flush=True)
    return median


def fill(path: Path, images: int) -> None:
    """Create a catalog with that many images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(path)
    catalog.images("none")
    catalog.close()
    engine = create_engine(f"sqlite:///{path}")
    rows = {
        table: []
        for table in (tables.Build, tables.Step, tables.Evidence, tables.Image, tables.ImageBlob, tables.Channel, tables.Revocation)
    }
    with engine.begin() as connection:
        for chain in range(images // DEPTH):
            for depth in range(DEPTH):
                _add(rows, chain, depth)
            if len(rows[tables.Image]) >= BATCH or chain == images // DEPTH - 1:
                for table, values in rows.items():
                    if values:
                        connection.execute(insert(table), values)
                        values.clear()
    engine.dispose()


def add_evidence(home: Home, chain: int) -> None:
    """What the builds of one chain changed, the files of its root, and the packages of each: what `bake why` reads. The package that is
    asked for came in the middle."""
    store = DirectoryStore(home.blobs)
    engine = create_engine(f"sqlite:///{home.catalog}")
    older = [Package(f"package-{number}", "1.0", "amd64") for number in range(400)]
    newer = [Package(each.name, "1.1", each.architecture) if each.name == "package-7" else each for each in older]
    with engine.begin() as connection:
        for depth in range(DEPTH):
            build = build_id(chain, depth)
            changed = (changes.Change(each.path, "added", 1, None, each) for each in _entries(depth, CHANGED))
            evidence = {
                "changes": store.add_bytes(changes.pack(changed)),
                "packages_before": store.add_bytes(pack_packages(PackageList(tuple(newer if depth > DEPTH // 2 else older)))),
                "packages_after": store.add_bytes(pack_packages(PackageList(tuple(newer if depth >= DEPTH // 2 else older)))),
            }
            if depth == 0:
                evidence = evidence | {"manifest": store.add_bytes(_manifest())}
                del evidence["changes"]
            table = tables.Evidence
            connection.execute(delete(table).where(table.build == build))
            rows = [{"build": build, "position": number, "name": name, "digest": evidence[name]} for number, name in enumerate(evidence)]
            connection.execute(insert(table), rows)
    engine.dispose()


def _manifest() -> bytes:
    """The file manifest of an image, as a blob of evidence."""
    buffer = io.BytesIO()
    write_manifest(_entries(0, FILES), buffer)
    return buffer.getvalue()


def _entries(depth: int, count: int) -> Iterator[FileEntry]:
    for number in range(count):
        path = f"/usr/share/level-{depth}/file-{number}"
        yield FileEntry(path, 0o100644, 0, 0, number, hashlib.sha256(path.encode()).hexdigest())


def name_of(chain: int, depth: int) -> str:
    return f"team-{chain % 1000:03}-level-{depth}" if depth else "debian-13"


def version_of(chain: int, depth: int) -> str:
    return f"1.{chain // 1000}.0" if depth else f"13.{chain % 40}.{chain // 40}"


def image_id(chain: int, depth: int) -> str:
    return hashlib.sha256(f"image {chain} {depth}".encode()).hexdigest()[:12]


def build_id(chain: int, depth: int) -> str:
    return hashlib.sha256(f"build {chain} {depth}".encode()).hexdigest()[:12]


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _add(rows: dict[Any, list[dict[str, Any]]], chain: int, depth: int) -> None:
    identifier, name = image_id(chain, depth), name_of(chain, depth)
    build = build_id(chain, depth)
    version = version_of(chain, depth)
    at, key = "2026-11-22T20:00:00Z", digest_of(build).removeprefix("sha256:")
    rows[tables.Build].append({
        "id": build, "status": "built", "started": at, "finished": at, "template_name": name, "template_version": version,
        "template_path": f"/t/{name}.yaml", "template_text": TEMPLATE.format(name=name, version=version),
        "template_digest": digest_of(name),
        "git_commit": "", "git_dirty": False, "variables": {}, "source": {"kind": "image"}, "shape": {"cpus": 2}, "machine": {}, "host": {},
        "tools": {"bake": "1"}, "who": "somebody", "ci": {}, "timings": {"provision": 3.0}, "inputs": {}, "verify": "passed",
        "verify_key": "", "error": "", "fingerprint": key, "reproduction": {},
    })  # fmt: skip
    for position in (1, 2, 3):
        rows[tables.Step].append({
            "build": build, "position": position, "name": f"step {position}", "kind": "shell", "key": key, "origin": "t.yaml:3:5",
            "bundle": "", "status": "done", "seconds": 1.0, "exit_code": 0, "attempts": 1, "ran": 0.0, "inputs": {},
        })  # fmt: skip
    for position, kind in enumerate(("log", "manifest", "packages_before", "packages_after", "junit")):
        rows[tables.Evidence].append({"build": build, "position": position, "name": kind, "digest": digest_of(f"{kind} {build}")})
    rows[tables.Image].append({
        "id": identifier, "name": name, "version": version, "digest": digest_of(identifier), "fingerprint": key,
        "parent": image_id(chain, depth - 1) if depth else None, "created": at, "size": 1 << 20, "virtual_size": 1 << 32, "verified": True,
        "build": build, "builder": "libvirt", "firmware": "bios", "ssh_username": "root", "description": "", "origin": "built",
        "labels": {"chain": f"c{chain}", "level": str(depth)}, "matrix": {}, "removed": None,
    })  # fmt: skip
    for position in range(depth + 1):
        rows[tables.ImageBlob].append({"image": identifier, "position": position, "digest": digest_of(image_id(chain, depth - position))})
    if depth == DEPTH - 1:
        _add_marks(rows, chain, identifier, name, at)


def _add_marks(rows: dict[Any, list[dict[str, Any]]], chain: int, identifier: str, name: str, at: str) -> None:
    """A channel for each name, and one in a thousand chains revoked from its root on."""
    if chain < 1000:
        rows[tables.Channel].append({
            "name": name, "channel": "prod", "image": identifier, "protected": False, "protected_by": "", "who": "somebody", "changed": at,
        })  # fmt: skip
    if chain % 1000 == 7:
        rows[tables.Revocation].append({
            "image": image_id(chain, 0), "reason": "a hole", "who": "somebody", "at": at, "effective": at, "descendants": True,
            "undone": None, "undone_by": "",
        })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
