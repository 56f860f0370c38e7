"""A Debian root file system as a tar, made by mmdebstrap: as root directly, as an ordinary user in a user namespace.

The mirror is the one that the template names, else mmdebstrap's own default for the suite. The host's apt settings below `Acquire`
(proxies, certificate authorities, Check-Valid-Until, retries) hold while the root is made and are not left in it: mmdebstrap by
itself reads none of the host's apt configuration.
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

SHARED_TEMPORARY = Path("/var/tmp")  # on disk, and every user's subordinate ids may pass through it
HOST_SETTINGS = "etc/apt/apt.conf.d/00bake-host"


@dataclass(frozen=True)
class Request:
    """What is to be bootstrapped."""

    suite: str
    packages: tuple[str, ...]
    components: tuple[str, ...]
    variant: str
    mirror: str | None
    keyring: Path | None
    hostname: str
    names: Names
    epoch: int  # seconds since the epoch: no file of the root is newer


def bootstrap(request: Request, tar: Path, *, scratch: Path, ledger: BuildLedger, on_line: Callable[[str], None]) -> tuple[Package, ...]:
    """Write the root file system to `tar`; returns the packages in it. Raises SourceError with mmdebstrap's reason."""
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
        f"--essential-hook=tar-in {shlex.quote(str(overlay))} /",  # before the kernel is installed, whose initramfs reads our settings
        f"--customize-hook=upload {shlex.quote(str(customize))} /bake-customize",
        f'--customize-hook=chroot "$1" sh /bake-customize {shlex.quote(request.hostname)}',
        '--customize-hook=rm "$1/bake-customize"',
        f"--customize-hook=download /var/lib/dpkg/status {shlex.quote(str(status))}",
    ]
    return [*options, f"--keyring={request.keyring}"] if request.keyring else options


def write_host_settings(destination: Path) -> None:
    """The host's `Acquire` settings as a tar for the root that is being made; empty lists and the like are left out."""
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
    """Where mmdebstrap builds the tree. In unshare mode subordinate ids work there, who may not enter a user's private directories."""
    if is_root():
        yield scratch
        return
    path = Path(tempfile.mktemp(prefix="bake-bootstrap-", dir=SHARED_TEMPORARY))  # noqa: S306 - the name is entered before it exists
    with ledger.holding("directory", path=str(path)):
        path.mkdir(mode=0o711)
        try:
            yield path
        finally:
            remove_tree(path)


def _explain(error: CommandError, request: Request) -> SourceError:
    text = error.result.stdout + error.result.stderr
    reason = "\n".join(line for line in text.splitlines() if line.startswith(("E:", "W:")) or "rror" in line) or error.result.tail
    hint = ""
    if "NO_PUBKEY" in text or "not signed" in text:
        hint = "this host does not know the suite's signing key: upgrade debian-archive-keyring, or name a file with `keyring:`"
    elif "Unable to locate package" in text or "has no installation candidate" in text:
        hint = f"is each package in {request.suite}, and in the components {', '.join(request.components)}?"
    elif "Could not resolve" in text or "Temporary failure" in text or "onnection" in text or "Failed to fetch" in text:
        hint = "the mirror does not answer: is there a network, and does it need a proxy (http_proxy, or Acquire::http::Proxy in apt.conf)?"
    elif "404" in text or "does not have a Release file" in text:
        hint = f"is {request.suite!r} the name of a suite on that mirror?"
    elif "No space left on device" in text:
        hint = "the disk is full: make room, or point BAKE_HOME at another disk"
    return SourceError(f"cannot bootstrap {request.suite}:\n{reason.strip()}", hint=hint)
