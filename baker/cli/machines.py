"""What `run` and `shell` have in common: a throw-away machine, how large, with which ports."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import positive
from baker.core.errors import UsageError
from baker.core.model import Forward

if TYPE_CHECKING:
    from baker.sessions.ephemeral import Running


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument("--layer", metavar="NAME@STEP", help="instead of an image: the machine as it was after a step of the last build")
    parser.add_argument(
        "-p", "--publish", action="append", default=[], metavar="[HOST:]GUEST", help="show a port of the guest on this host's loopback"
    )
    parser.add_argument("--cpus", type=positive, metavar="N", help="processors (default: as it was built with)")
    parser.add_argument("--memory", metavar="SIZE", help="memory, such as 2GiB (default: as it was built with)")
    parser.add_argument("--user", metavar="NAME", help="who to log in as (default: as the image says)")
    parser.add_argument("--timeout", type=positive, default=300, metavar="SECONDS", help="how long it may take to answer (default: 300)")
    parser.add_argument("--connect", metavar="URI", help="libvirt connection, such as qemu:///system (default: in this process)")
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), help="what QEMU uses (default: decided by a probe)")


def forward(text: str) -> Forward:
    """`80` (any free port of the host) or `8080:80`. UsageError for anything else."""
    host, sign, guest = text.rpartition(":")
    ports = [host, guest] if sign else [guest]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in ports):
        raise UsageError(f"{text!r} is no port to publish", hint="-p 80 or -p 8080:80 (host:guest)")
    return Forward(int(guest), int(host) if sign else 0)


def shape(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of Shape that the command line sets."""
    wanted: dict[str, Any] = {"cpus": args.cpus, "accelerator": args.accelerator}
    if args.memory:
        from baker.core.units import parse_size
        from baker.template.libvirt import enough_memory

        try:
            wanted["memory"] = enough_memory(parse_size(args.memory))
        except ValueError as error:
            raise UsageError(f"--memory: {error}", hint="for example: --memory 2GiB") from error
    return {name: value for name, value in wanted.items() if value is not None}


@contextmanager
def machine(args: argparse.Namespace, app: App, *, timeout: float | None = None) -> Iterator[Running]:
    """The machine, up and answering; what happens until then is shown on stderr."""
    if (args.image is None) == (args.layer is None):
        raise UsageError("one of IMAGE and --layer is needed", hint="bake shell web, or bake shell --layer web@3")
    if args.layer and (ignored := [f"--{name}" for name in ("cpus", "memory", "user", "connect", "accelerator") if getattr(args, name)]):
        raise UsageError(f"--layer goes on with the machine as it was: it takes no {', '.join(ignored)}", hint="leave those out")
    forwards = [forward(text) for text in args.publish]
    wanted, seconds = shape(args), timeout or args.timeout
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        start = (
            baker.enter(args.layer, forwards=forwards, timeout=seconds)
            if args.layer
            else baker.boot(args.image, forwards=forwards, shape=wanted, uri=args.connect, username=args.user, timeout=seconds)
        )
        with start as running:
            shown.close()
            yield running


def urls(running: Running) -> list[str]:
    """What each published port is reached by."""
    names = {80: "http://127.0.0.1:{}/", 443: "https://127.0.0.1:{}/", 8080: "http://127.0.0.1:{}/", 8443: "https://127.0.0.1:{}/"}
    return [f"port {guest}: {names.get(guest, '127.0.0.1:{}').format(host)}" for guest, host in running.ports.items()]
