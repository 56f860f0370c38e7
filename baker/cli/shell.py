"""Be inside a throw-away machine made from an image: over SSH, or on its serial console. Leaving ends the machine and all its changes."""

from __future__ import annotations

import argparse
import shlex

from baker import process
from baker.cli.app import App
from baker.cli.machines import add_machine_options, machine, urls
from baker.errors import HostError, UsageError

EXAMPLES = """
  bake shell web
  bake shell web --user debian -p 8080:80
  bake shell --layer web@3         the machine as it was after step 3 of the last build
  bake shell web --serial          the serial console; leave with Ctrl-]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine_options(parser)
    parser.add_argument("--serial", action="store_true", help="the serial console instead of SSH; leave with Ctrl-]")


def run(args: argparse.Namespace, app: App) -> int:
    if args.serial and not (app.stdin.isatty() and app.out.stream.isatty()):
        raise UsageError("the serial console needs a terminal", hint="without one: bake run IMAGE -- COMMAND, or bake logs BUILD --console")
    with machine(args, app) as running:
        for url in urls(running):
            app.note(url)
        if not args.serial:
            app.note(f"{running.title}, a throw-away machine ({shlex.join(running.ssh)}); leave with `exit`")
            process.interactive(running.ssh, env={"TERM": app.env.get("TERM", "dumb")})
            return 0
        console = getattr(running.machine, "serial", None)
        if console is None:
            raise HostError("machines of this builder have no serial console to attach to")
        from baker.cli.serial import attach

        app.note("the serial console; Enter for a prompt, leave with Ctrl-]")
        attach(console, app.stdin, app.out.stream)
        return 0
