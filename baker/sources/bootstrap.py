"""Make a Debian root file system as a tar with mmdebstrap: directly as root, or in a user namespace as an ordinary user.

The mirror is the one in the template, else mmdebstrap's default for the suite. mmdebstrap by itself reads none of the host's apt
configuration. bake passes on the host's settings below `Acquire` (proxies, certificate authorities, Check-Valid-Until, retries) while
the root file system is made, and removes them from it afterwards.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baker.core.errors import SourceError
from baker.core.ledger import BuildLedger
from baker.core.model import Package
from baker.core.process import CommandError, need, run
from baker.core.user_namespace import check_host, in_private_mounts, is_root, remove_tree
from baker.disks.packages import dpkg
from baker.sources import machine_files
from baker.sources.layout import Names

SHARED_TEMPORARY = Path("/var/tmp")  # on disk, and accessible to every user's subordinate IDs
HOST_SETTINGS = "etc/apt/apt.conf.d/00bake-host"


@dataclass(frozen=True)
class Request:
    """The inputs of one bootstrap."""

    suite: str
    packages: tuple[str, ...]
    components: tuple[str, ...]
    variant: str
    mirror: str | None
    keyring: Path | None
    hostname: str
    names: Names
    epoch: int  # seconds since the epoch: no file of the root file system is newer


def bootstrap(request: Request, tar: Path, *, scratch: Path, ledger: BuildLedger, on_line: Callable[[str], None]) -> tuple[Package, ...]:
    """Write the root file system to `tar` and return its packages. Raises SourceError with mmdebstrap's error messages."""
    tool = need("mmdebstrap")
    check_host()
    status = scratch / "dpkg-status"
    with _temporary_directory(scratch, ledger) as temporary:
        argv = [tool, *_options(request, scratch, status), request.suite, str(tar), *([request.mirror] if request.mirror else [])]
        try:
            run(
                in_private_mounts(argv),
                env={"TMPDIR": str(temporary), "SOURCE_DATE_EPOCH": str(request.epoch)},
                on_line=on_line,
                what="mmdebstrap",
            )
        except CommandError as error:
            raise _explain(error, request) from error
    return tuple(sorted(dpkg.packages(status.read_bytes()), key=lambda package: package.name))


def _options(request: Request, scratch: Path, status: Path) -> list[str]:
    overlay, settings, customize = scratch / "machine.tar", scratch / "host-apt.tar", machine_files.DIRECTORY / machine_files.BUILD_SCRIPT
    machine_files.write_tar(overlay, request.names, request.epoch)
    write_host_settings(settings)
    options = [
        "--mode=root" if is_root() else "--mode=unshare",
        f"--variant={request.variant}",
        f"--components={','.join(request.components)}",
        "--architectures=amd64",
        "--format=tar",
        f"--include={','.join(request.packages)}",
        f"--setup-hook=tar-in {shlex.quote(str(settings))} /",
        f"--essential-hook=tar-in {shlex.quote(str(overlay))} /",  # before the kernel: its initramfs is made with the settings in it
        f"--customize-hook=upload {shlex.quote(str(customize))} /bake-customize",
        f'--customize-hook=chroot "$1" sh /bake-customize {shlex.quote(request.hostname)}',
        '--customize-hook=rm "$1/bake-customize"',
        f"--customize-hook=download /var/lib/dpkg/status {shlex.quote(str(status))}",
    ]
    return [*options, f"--keyring={request.keyring}"] if request.keyring else options


def write_host_settings(destination: Path) -> None:
    """Write the host's apt settings below `Acquire` to a tar for the root file system; empty settings are left out."""
    lines: list[str] = []
    if shutil.which("apt-config"):
        dump = run(["apt-config", "dump", "--no-empty", "Acquire"]).stdout.splitlines()
        lines = [line for line in dump if line.startswith("Acquire::")]
    settings = destination.with_suffix("")
    target = settings / HOST_SETTINGS
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")
    run(["tar", "--create", "--file", destination, "--directory", settings, "--owner=0", "--group=0", f"./{HOST_SETTINGS}"])


@contextmanager
def _temporary_directory(scratch: Path, ledger: BuildLedger) -> Iterator[Path]:
    """The directory where mmdebstrap builds the tree.

    In unshare mode mmdebstrap works with subordinate IDs, which cannot enter the user's private directories. It therefore gets a
    directory below /var/tmp, which is in the ledger before it exists.
    """
    if is_root():
        yield scratch
        return
    path = Path(tempfile.mktemp(prefix="bake-bootstrap-", dir=SHARED_TEMPORARY))  # noqa: S306 - the ledger needs the name first
    with ledger.holding("directory", path=str(path)):
        path.mkdir(mode=0o711)
        try:
            yield path
        finally:
            remove_tree(path)


def _explain(error: CommandError, request: Request) -> SourceError:
    """mmdebstrap's failure with its error lines, and a hint and code for the known causes."""
    text = error.result.stdout + error.result.stderr
    reason = "\n".join(line for line in text.splitlines() if line.startswith(("E:", "W:")) or "rror" in line) or error.result.tail
    hint, code = "", "source.bootstrap-failed"
    if "NO_PUBKEY" in text or "not signed" in text:
        hint = "this host does not have the suite's signing key: upgrade debian-archive-keyring, or name a key file with `keyring:`"
        code = "source.bootstrap-key"
    elif "Unable to locate package" in text or "has no installation candidate" in text:
        hint = f"check that each package is in {request.suite}, in the components {', '.join(request.components)}"
        code = "source.bootstrap-package"
    elif "Could not resolve" in text or "Temporary failure" in text or "onnection" in text or "Failed to fetch" in text:
        hint = "the mirror does not answer: check the network and the proxy (http_proxy, or Acquire::http::Proxy in apt.conf)"
        code = "source.bootstrap-network"
    elif "404" in text or "does not have a Release file" in text:
        hint = f"check that {request.suite!r} is the name of a suite on that mirror"
        code = "source.bootstrap-suite"
    elif "No space left on device" in text:
        hint = "the disk is full: make room, or point BAKE_HOME at another disk"
        code = "source.bootstrap-no-space"
    return SourceError(f"cannot bootstrap {request.suite}:\n{reason.strip()}", hint=hint, code=code)
