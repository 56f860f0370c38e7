"""KVM or TCG: decided by a guest that really runs, not by the existence of /dev/kvm.

On many clouds and CI runners /dev/kvm opens, machines can be created, even firmware runs, and then a stock kernel hangs or
QEMU dies. So a Linux kernel is booted under KVM without a root file system: it must get as far as its panic, "unable to mount
root", which takes a second where KVM works. The answer holds for one boot of the host and one QEMU binary.
"""

from __future__ import annotations

import json
import os
import platform
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from baker.core import process
from baker.core.errors import HostError
from baker.core.home import Home, ensure
from baker.core.model import Accelerator

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 30.0
SILENCE_SECONDS = 8.0  # a kernel that runs says something more often than that, on a busy host, too
FINISHED = b"Kernel panic - not syncing"
MEMORY = "256"  # MiB, for the probe's guest
KERNEL_ARGUMENTS = "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1 root=/dev/none"
HOST_KERNELS = ("/boot/vmlinuz-*", "/boot/vmlinuz")
KEPT_KERNEL = "probe-kernel"


@dataclass(frozen=True)
class Decision:
    """Which accelerator, and why, in words for the record."""

    name: Literal["kvm", "tcg"]
    reason: str


@dataclass(frozen=True)
class ProbeResult:
    """What became of the probe's guest."""

    works: bool
    words: str


Probe = Callable[[Path, Path], ProbeResult]  # (QEMU binary, kernel) -> what became of it


def decide(
    wanted: Accelerator, *, cache: Path, kernel: Callable[[], Path | None], device: Path = DEVICE, probe: Probe | None = None
) -> Decision:
    """The accelerator for machines on this host. `kernel` finds a Linux kernel file when one is needed; `cache` is where the
    answer is kept. HostError when KVM is asked for and there is none."""
    if wanted == "tcg":
        return Decision("tcg", "asked for")
    missing = _missing(device)
    if wanted == "kvm":
        if missing:
            raise HostError(f"accelerator: kvm is asked for, but {missing}", hint="accelerator: auto takes TCG where KVM does not work")
        return Decision("kvm", "asked for")
    if missing:
        return Decision("tcg", missing)
    binary = Path(process.need("qemu-system-x86_64", package="qemu-system-x86"))
    key = _key(binary)
    memory = cache / "accelerator.json"
    known = _recall(memory, key)
    return known or _probe(binary, kernel, probe or run_probe, memory, key)


def choose(home: Home) -> Decision:
    """The accelerator of this host where no disk is at hand whose kernel could be tried."""
    return decide("auto", cache=home.cache, kernel=lambda: any_kernel(home.cache))


def _probe(binary: Path, kernel: Callable[[], Path | None], probe: Probe, memory: Path, key: dict[str, str]) -> Decision:
    found = kernel()
    if found is None:
        return Decision("tcg", "there is no kernel to try KVM with, and /dev/kvm alone proves nothing")
    verdict = probe(binary, found)
    decision = Decision("kvm" if verdict.works else "tcg", verdict.words)
    ensure(memory.parent)
    temporary = memory.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"key": key, **asdict(decision)}))
    temporary.rename(memory)
    return decision


def _missing(device: Path) -> str:
    """Why KVM is out of the question, or ""."""
    if platform.machine() != "x86_64":
        return f"this host is {platform.machine()}, and KVM runs guests of its own kind only"
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened by this user (not in its group)"
    return ""


def _key(binary: Path) -> dict[str, str]:
    """What the answer depends on: this boot of the host, this QEMU."""
    found = binary.resolve().stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot_id": boot, "qemu": f"{binary.resolve()} {found.st_size} {found.st_mtime_ns}"}


def _recall(memory: Path, key: dict[str, str]) -> Decision | None:
    try:
        kept = json.loads(memory.read_text())
        return Decision(kept["name"], kept["reason"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_kernel(data: bytes, cache: Path) -> Path:
    """Keep the kernel `data` as a file for this probe and later ones."""
    path = ensure(cache) / KEPT_KERNEL
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)
    return path


def any_kernel(cache: Path) -> Path | None:
    """The host's kernel, or one that was kept, where no disk is at hand."""
    kept = cache / KEPT_KERNEL
    return host_kernel() or (kept if kept.is_file() else None)


def host_kernel(patterns: tuple[str, ...] = HOST_KERNELS) -> Path | None:
    """The newest kernel of this host that may be read."""
    for pattern in patterns:
        found = [path for path in Path("/").glob(pattern.lstrip("/")) if path.is_file() and os.access(path, os.R_OK)]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def run_probe(binary: Path, kernel: Path, *, accelerator: str = "kvm", cpu: str = "host", silence: float = SILENCE_SECONDS) -> ProbeResult:
    """Boot `kernel` under `accelerator` until it panics for want of a root file system, dies, or falls silent."""
    argv: list[str | Path] = [
        binary, "-nodefaults", "-no-user-config", "-display", "none", "-machine", f"q35,accel={accelerator}", "-cpu", cpu, "-m", MEMORY,
        "-kernel", kernel, "-append", KERNEL_ARGUMENTS, "-no-reboot", "-serial", "stdio", "-monitor", "none",
    ]  # fmt: skip
    name = accelerator.upper()
    with process.spawn(argv) as child:
        console, silent = _listen(child, silence)
        if FINISHED in console:
            return ProbeResult(True, f"the probe's kernel ran under {name}")
        if silent:
            return ProbeResult(False, f"the probe's kernel did not finish under {name}")
        child.wait(process.GRACE_SECONDS)
        assert child.stderr
        words = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    return ProbeResult(
        False, f"QEMU ended under {name}: {words[0].removeprefix(f'{binary.name}: ') if words else f'exit code {child.returncode}'}"
    )


def _listen(child: subprocess.Popen[bytes], silence: float) -> tuple[bytes, bool]:
    """What the guest said until its panic or QEMU's end; and whether it fell silent or ran out of time instead."""
    assert child.stdout
    console = b""
    deadline = time.monotonic() + PROBE_SECONDS
    while FINISHED not in console:
        patience = min(silence, deadline - time.monotonic())
        ready, _, _ = select.select([child.stdout], [], [], max(patience, 0))
        if not ready:
            return console, True
        chunk = os.read(child.stdout.fileno(), 65536)
        if not chunk:
            return console, False
        console += chunk
    return console, False
