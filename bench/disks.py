"""Measures the time to read and to lay out disks: `python -m bench.disks [--size MIB] [--runs N] [--work DIR]`

Makes a file system of 1 GiB of files in the sizes that /usr has (most of them small), then measures, in turns within one run:

- the listing of all files with their SHA-256, against `sha256sum` over the same files: the goal is at most 1.5 times its time
- the layout of the disk and its digest, in seconds per GiB: the goal is at most 40. Once as a delta on a base, of which a twentieth of
  the files has changed, and once without a base, where everything is written.

Both read from memory, as after a build, which has just written the disk. The exit code is 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from baker.core.model import Disk
from baker.disks.manifest import file_manifest
from baker.disks.normalize import normalize
from baker.disks.raw import raw_digest

LISTING = 1.5  # times sha256sum
LAYING = 40.0  # seconds per GiB
EPOCH = 1_700_000_000
UUID = "5b1a9b0e-1f0e-4f8e-9d0a-0123456789ab"
# KiB -> files of that size among a thousand
SIZES = {0.5: 300, 2: 250, 6: 200, 20: 150, 70: 70, 250: 25, 1500: 4, 6000: 1}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.disks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="how much is in the files (default: 1024)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each is measured (default: 3)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the disks are made (default: a temporary directory)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bake-bench-disks-", dir=args.work) as temporary:
        work = Path(temporary)
        files = fill(work / "tree", args.size << 20)
        base = make(work / "tree", work / "base.raw", args.size)
        change(work / "tree", files // 20)
        captured = make(work / "tree", work / "captured.raw", args.size)
        print(f"{files} files, {args.size} MiB; medians of {args.runs}")
        reached = [listing(work, captured, args.runs), laying(work, captured, base, args.size, args.runs)]
    return int(not all(reached))


def fill(root: Path, size: int) -> int:
    """Write files with `size` bytes in total, a hundred in each directory. Returns their number."""
    source = random.Random(size)
    weights = list(SIZES.values())
    number = written = 0
    while written < size:
        kib = source.choices(list(SIZES), weights)[0]
        length = int(kib * 1024 * source.uniform(0.5, 1.5))
        path = root / f"usr/share/{number // 10_000}/{number // 100 % 100}/file-{number:06d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(length))
        number, written = number + 1, written + length
    (root / "etc").mkdir()
    (root / "etc/fstab").write_text("")
    return number


def change(root: Path, count: int) -> None:
    """Change the content of `count` files."""
    for path in sorted(root.glob("usr/share/*/*/file-*"))[::20][:count]:
        path.write_bytes(bytes(reversed(path.read_bytes())))


def make(root: Path, path: Path, size: int) -> Disk:
    options = ["-t", "ext4", "-O", "^orphan_file,^metadata_csum_seed", "-I", "256", "-U", UUID, "-E", f"hash_seed={UUID}"]
    subprocess.run(["mke2fs", "-q", "-F", *options, "-d", root, path, f"{size * 3 // 2 + 64}M"], check=True, stdout=subprocess.DEVNULL)
    return Disk(path, "raw", path.stat().st_size)


def listing(work: Path, disk: Disk, runs: int) -> bool:
    """Whether listing with SHA-256 is fast enough compared with sha256sum of the same files."""
    sums = f"find {work / 'tree'} -type f -print0 | xargs -0 sha256sum -b > {work / 'sums'}"
    seconds = alternate(
        {
            "sha256sum": lambda: subprocess.run(["sh", "-c", sums], check=True),
            "listing": lambda: sum(1 for _ in file_manifest(disk, scratch=work)),
        },
        runs,
    )
    ratio = seconds["listing"] / seconds["sha256sum"]
    print(f"listing with SHA-256      {seconds['listing']:6.2f} s, sha256sum {seconds['sha256sum']:6.2f} s: {ratio:.2f} (asked: {LISTING})")
    return ratio <= LISTING


def laying(work: Path, captured: Disk, base: Disk, size: int, runs: int) -> bool:
    """Whether layout and digest are fast enough."""

    def again(backing: Disk | None) -> None:
        done = normalize(captured, backing, work / "laid.qcow2", epoch=EPOCH, scratch=work)
        raw_digest(done.disk, scratch=work)
        done.disk.path.unlink()

    seconds = alternate({"a delta": lambda: again(base), "everything": lambda: again(None)}, runs)
    rates = {name: took * 1024 / size for name, took in seconds.items()}
    for name, rate in rates.items():
        print(f"layout + digest, {name:<10} {seconds[name]:6.2f} s: {rate:.1f} s per GiB (asked: {LAYING:.0f})")
    return max(rates.values()) <= LAYING


def alternate(jobs: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each function, run alternately, without a first run that fills the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(runs + 1):
        for name, job in jobs.items():
            began = time.monotonic()
            job()
            if number:
                seconds[name].append(time.monotonic() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


if __name__ == "__main__":
    if not shutil.which("mke2fs"):
        sys.exit("bench.disks: needs mke2fs (Debian: e2fsprogs)")
    sys.exit(main())
