"""Options of `run` and `shell`, and the ephemeral machine that they describe."""

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
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("--layer", metavar="NAME@STEP", help="instead of an image: restore the machine after this step of the last build")
    parser.add_argument(
        "-p", "--publish", action="append", default=[], metavar="[HOST:]GUEST", help="publish a port of the guest on the loopback interface"
    )
    parser.add_argument("--cpus", type=positive, metavar="N", help="number of processors (default: as in the build)")
    parser.add_argument("--memory", metavar="SIZE", help="memory, such as 2GiB (default: as in the build)")
    parser.add_argument("--user", metavar="NAME", help="the user to log in as (default: the one of the image)")
    parser.add_argument("--timeout", type=positive, default=300, metavar="SECONDS", help="how long to wait for SSH (default: 300)")
    parser.add_argument(
        "--connect", metavar="URI", help="libvirt connection, such as qemu:///system (default: libvirt in the bake process)"
    )
    parser.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), help="accelerator of QEMU (default: decided by a probe)")


def forward(text: str) -> Forward:
    """The port forwarding of `80` (to any free port of the host) or `8080:80`. UsageError for any other text."""
    host, sign, guest = text.rpartition(":")
    ports = [host, guest] if sign else [guest]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in ports):
        raise UsageError(f"{text!r} is not a port to publish", hint="use -p 80 or -p 8080:80 (host:guest)", code="usage.bad-port")
    return Forward(int(guest), int(host) if sign else 0)


def machine_spec(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of MachineSpec that the command line sets."""
    spec: dict[str, Any] = {"cpus": args.cpus, "accelerator": args.accelerator}
    if args.memory:
        from baker.core.units import parse_size
        from baker.template.libvirt import enough_memory

        try:
            spec["memory"] = enough_memory(parse_size(args.memory))
        except ValueError as error:
            raise UsageError(f"--memory: {error}", hint="for example: --memory 2GiB", code="usage.bad-size") from error
    return {name: value for name, value in spec.items() if value is not None}


@contextmanager
def machine(args: argparse.Namespace, app: App, *, timeout: float | None = None) -> Iterator[Running]:
    """An ephemeral machine that answers over SSH. Progress until then is shown on stderr."""
    if (args.image is None) == (args.layer is None):
        raise UsageError(
            "exactly one of IMAGE and --layer is needed", hint="bake shell web, or bake shell --layer web@3", code="usage.one-of"
        )
    if args.layer and (ignored := [f"--{name}" for name in ("cpus", "memory", "user", "connect", "accelerator") if getattr(args, name)]):
        message = f"--layer restores the machine unchanged: it cannot be combined with {', '.join(ignored)}"
        raise UsageError(message, hint="leave out those options", code="usage.conflicting-options")
    forwards = [forward(text) for text in args.publish]
    spec, seconds = machine_spec(args), timeout or args.timeout
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        start = (
            baker.enter(args.layer, forwards=forwards, timeout=seconds)
            if args.layer
            else baker.boot(args.image, forwards=forwards, shape=spec, uri=args.connect, username=args.user, timeout=seconds)
        )
        with start as running:
            shown.close()
            yield running


def urls(running: Running) -> list[str]:
    """A line for each published port, with the address that reaches it."""
    names = {80: "http://127.0.0.1:{}/", 443: "https://127.0.0.1:{}/", 8080: "http://127.0.0.1:{}/", 8443: "https://127.0.0.1:{}/"}
    return [f"port {guest}: {names.get(guest, '127.0.0.1:{}').format(host)}" for guest, host in running.ports.items()]
