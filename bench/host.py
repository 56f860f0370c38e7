"""The hardware and software of the benchmark, for the report, without the name of the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

from baker import __version__
from baker.core.host_facts import host_facts
from bench import machine
from bench.bake import ROOT


def describe() -> dict[str, str]:
    facts = host_facts()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": facts["cpu"],
        "cores": str(os.cpu_count()),
        "memory": f"{pages / (1 << 30):.0f} GiB",
        "system": facts["system"],
        "kernel": facts["kernel"],
        "QEMU": _first_line(["qemu-system-x86_64", "--version"]),
        "Packer": _first_line(["packer", "version"]),
        "bake": f"{__version__} ({_first_line(['git', '-C', str(ROOT), 'describe', '--always', '--dirty'])})",
        "accelerator": machine.ACCELERATOR,
        "guests": f"{machine.CPUS} processors, {machine.MEMORY_MIB} MiB of memory",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _first_line(argv: Sequence[str]) -> str:
    result = subprocess.run(argv, check=False, capture_output=True, text=True)
    return (result.stdout.splitlines() or ["unknown"])[0]
