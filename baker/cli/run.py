"""Run an ephemeral machine of an image and publish its ports on this host. It ends with Ctrl-C, or with the command after `--`."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.machines import add_machine_options, machine, urls
from baker.core import process
from baker.core.errors import Interrupted

if TYPE_CHECKING:
    from baker.sessions.ephemeral import Running

EXAMPLES = """
  bake run web                     publish port 80 on a free port of this host
  bake run web -p 8080:80          publish port 80 on port 8080
  bake run web -- nginx -v         run a command in it, and end with its exit code
"""
TAKES_COMMAND = True
DEFAULT_PORTS = ("80",)
POLL_SECONDS = 1.0  # between two checks whether the machine is still running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine_options(parser)


def run(args: argparse.Namespace, app: App) -> int:
    if not args.command:
        args.publish = args.publish or list(DEFAULT_PORTS)
    with machine(args, app) as running:
        if args.command:
            return process.interactive([*running.ssh, shlex.join(args.command)], env=_terminal(app))
        return stay(app, running)


def stay(app: App, running: Running) -> int:
    """Print how to reach the machine and keep it until Ctrl-C, or until it powers off."""
    app.line(f"{app.out.paint(running.title, 'bold')} is running")
    app.lines(["  " + url for url in urls(running)])
    app.line(f"  log in: {shlex.join(running.ssh)}")
    app.note("Ctrl-C removes the machine with all its changes")
    try:
        while running.machine.running():
            threading.Event().wait(POLL_SECONDS)
    except Interrupted as error:
        if error.signal_number != signal.SIGINT:
            raise
        return 0
    app.note("the machine has powered off")
    return 0


def _terminal(app: App) -> dict[str, str]:
    return {"TERM": app.env.get("TERM", "dumb")}
