"""Start a throw-away machine from an image and show its ports on this host. It ends with Ctrl-C, or with the command after `--`."""

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
  bake run web                     with port 80 on a free port of this host
  bake run web -p 8080:80          on port 8080
  bake run web -- nginx -v         run a command in it; its exit code is bake's
"""
TAKES_COMMAND = True
DEFAULT_PORTS = ("80",)
LOOK_SECONDS = 1.0  # between two looks whether the machine still runs


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
    """Say where the machine is and keep it until Ctrl-C, or until it powers off by itself."""
    app.line(f"{app.out.paint(running.title, 'bold')} is running")
    app.lines(["  " + url for url in urls(running)])
    app.line(f"  log in: {shlex.join(running.ssh)}")
    app.note("Ctrl-C ends it; all its changes go with it")
    try:
        while running.machine.running():
            threading.Event().wait(LOOK_SECONDS)
    except Interrupted as error:
        if error.signal_number != signal.SIGINT:
            raise
        return 0
    app.note("the machine has powered off")
    return 0


def _terminal(app: App) -> dict[str, str]:
    return {"TERM": app.env.get("TERM", "dumb")}
