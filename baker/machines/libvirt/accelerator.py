"""Choose KVM or TCG: by a probe guest that runs, not by the existence of /dev/kvm.

On many clouds and CI runners /dev/kvm can be opened, machines can be created, and even firmware runs, but then a kernel hangs or QEMU
dies. So the probe boots a Linux kernel under KVM without a root file system. The kernel must get as far as its panic, "unable to mount
root", which takes about a second when KVM works. The result is valid for one boot of the host and one QEMU binary.
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
SILENCE_SECONDS = 8.0  # a booting kernel writes to its console more often, even on a busy host
FINISHED = b"Kernel panic - not syncing"
MEMORY = "256"  # MiB, for the probe's guest
KERNEL_ARGUMENTS = "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1 root=/dev/none"
HOST_KERNELS = ("/boot/vmlinuz-*", "/boot/vmlinuz")
CACHED_KERNEL = "probe-kernel"


@dataclass(frozen=True)
class Decision:
    """An accelerator, and why it was chosen, for the record."""

    name: Literal["kvm", "tcg"]
    reason: str


@dataclass(frozen=True)
class ProbeResult:
    """The result of the probe: whether its kernel ran, and the reason for the record."""

    works: bool
    reason: str


Probe = Callable[[Path, Path], ProbeResult]  # (QEMU binary, kernel)


def decide(
    requested: Accelerator, *, cache: Path, kernel: Callable[[], Path | None], device: Path = DEVICE, probe: Probe | None = None
) -> Decision:
    """Choose the accelerator for machines on this host.

    `kernel` returns the file of a Linux kernel if the probe needs one. The probe's result is stored in `cache`. HostError when KVM is
    requested and cannot be used.
    """
    if requested == "tcg":
        return Decision("tcg", "requested")
    missing = _missing(device)
    if requested == "kvm":
        if missing:
            hint = "accelerator: auto uses TCG when KVM does not work"
            raise HostError(f"accelerator: kvm is requested, but {missing}", hint=hint, code="host.no-kvm")
        return Decision("kvm", "requested")
    if missing:
        return Decision("tcg", missing)
    binary = Path(process.need("qemu-system-x86_64", package="qemu-system-x86"))
    key = _key(binary)
    stored = cache / "accelerator.json"
    return _load(stored, key) or _probe(binary, kernel, probe or run_probe, stored, key)


def choose(home: Home) -> Decision:
    """Choose the accelerator of this host without a disk: the probe uses the host's kernel, or the cached one."""
    return decide("auto", cache=home.cache, kernel=lambda: any_kernel(home.cache))


def _probe(binary: Path, kernel: Callable[[], Path | None], probe: Probe, stored: Path, key: dict[str, str]) -> Decision:
    """Run the probe and store its result. Without a kernel: TCG, and nothing is stored."""
    found = kernel()
    if found is None:
        return Decision("tcg", "there is no kernel to test KVM with, and the existence of /dev/kvm proves nothing")
    result = probe(binary, found)
    decision = Decision("kvm" if result.works else "tcg", result.reason)
    ensure(stored.parent)
    temporary = stored.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"key": key, **asdict(decision)}))
    temporary.rename(stored)
    return decision


def _missing(device: Path) -> str:
    """Why KVM cannot be used, or ""."""
    if platform.machine() != "x86_64":
        return f"this host is {platform.machine()}, and KVM runs only guests of the host's architecture"
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"this user has no permission to open {device}, for example because they are not in its group"
    return ""


def _key(binary: Path) -> dict[str, str]:
    """What the probe's result depends on: the host's boot, and the QEMU binary."""
    found = binary.resolve().stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot_id": boot, "qemu": f"{binary.resolve()} {found.st_size} {found.st_mtime_ns}"}


def _load(stored: Path, key: dict[str, str]) -> Decision | None:
    try:
        value = json.loads(stored.read_text())
        return Decision(value["name"], value["reason"]) if value["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cache_kernel(data: bytes, cache: Path) -> Path:
    """Write a kernel to a file in the cache, for this probe and later ones."""
    path = ensure(cache) / CACHED_KERNEL
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)
    return path


def any_kernel(cache: Path) -> Path | None:
    """The host's kernel, else the cached one, else None."""
    cached = cache / CACHED_KERNEL
    return host_kernel() or (cached if cached.is_file() else None)


def host_kernel(patterns: tuple[str, ...] = HOST_KERNELS) -> Path | None:
    """The newest readable kernel of this host, from the first pattern that has one."""
    for pattern in patterns:
        found = [path for path in Path("/").glob(pattern.lstrip("/")) if path.is_file() and os.access(path, os.R_OK)]
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def run_probe(binary: Path, kernel: Path, *, accelerator: str = "kvm", cpu: str = "host", silence: float = SILENCE_SECONDS) -> ProbeResult:
    """Boot `kernel` under `accelerator` until it panics because it has no root file system, QEMU ends, or the console is silent.

    `silence`: seconds without console output after which the probe has failed.
    """
    argv: list[str | Path] = [
        binary, "-nodefaults", "-no-user-config", "-display", "none", "-machine", f"q35,accel={accelerator}", "-cpu", cpu, "-m", MEMORY,
        "-kernel", kernel, "-append", KERNEL_ARGUMENTS, "-no-reboot", "-serial", "stdio", "-monitor", "none",
    ]  # fmt: skip
    name = accelerator.upper()
    with process.spawn(argv) as child:
        console, timed_out = _read_console(child, silence)
        if FINISHED in console:
            return ProbeResult(True, f"the probe's kernel ran under {name}")
        if timed_out:
            return ProbeResult(False, f"the probe's kernel did not finish under {name}")
        child.wait(process.GRACE_SECONDS)
        assert child.stderr
        errors = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    reason = errors[0].removeprefix(f"{binary.name}: ") if errors else f"exit code {child.returncode}"
    return ProbeResult(False, f"QEMU ended under {name}: {reason}")


def _read_console(child: subprocess.Popen[bytes], silence: float) -> tuple[bytes, bool]:
    """Read the console until the guest panics or QEMU ends. Returns the output, and whether the guest was silent or too slow instead."""
    assert child.stdout
    console = b""
    deadline = time.monotonic() + PROBE_SECONDS
    while FINISHED not in console:
        timeout = min(silence, deadline - time.monotonic())
        ready, _, _ = select.select([child.stdout], [], [], max(timeout, 0))
        if not ready:
            return console, True
        chunk = os.read(child.stdout.fileno(), 65536)
        if not chunk:
            return console, False
        console += chunk
    return console, False
