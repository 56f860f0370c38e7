"""The UEFI firmware (OVMF) of the host: its code, and a copy of its variables for each machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from baker.core.errors import HostError

# (code, variables) of the build without Secure Boot, in Debian and Ubuntu, Fedora, Arch and openSUSE.
PLACES = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
)


def find(places: tuple[tuple[str, str], ...] = PLACES) -> tuple[Path, Path]:
    """The paths of OVMF's code and of the template of its variables. HostError when it is not installed."""
    for code, variables in places:
        if Path(code).is_file() and Path(variables).is_file():
            return Path(code), Path(variables)
    raise HostError("firmware: uefi needs OVMF, which is not installed", hint="apt-get install ovmf", code="host.no-uefi-firmware")


def copy_variables(template: Path, destination: Path) -> Path:
    """Copy the template of the variables for one machine, readable by the user only."""
    shutil.copyfile(template, destination)
    destination.chmod(0o600)
    return destination
