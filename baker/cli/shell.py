"""Be inside a throw-away machine made from an image: over SSH, or on its serial console. Leaving ends the machine and all its changes,
unless --commit makes an image of them."""

from __future__ import annotations

import argparse
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.commit import show, wish_of
from baker.cli.machines import add_machine_options, machine, urls
from baker.core import process
from baker.core.errors import HostError, UsageError

if TYPE_CHECKING:
    from baker.sessions.commit import CommitSource

EXAMPLES = """
  bake shell web
  bake shell web --user debian -p 8080:80
  bake shell --layer web@3         the machine as it was after step 3 of the last build
  bake shell web --commit web@1.0.1 -m "a hotfix"
  bake shell web --serial          the serial console; leave with Ctrl-]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine_options(parser)
    parser.add_argument(
        "--commit",
        metavar="NAME@VERSION",
        help="on leaving, make an image of what was changed (`bake commit` does it while the shell goes on)",
    )
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="with --commit: why")
    parser.add_argument("--serial", action="store_true", help="the serial console instead of SSH; leave with Ctrl-]")


def run(args: argparse.Namespace, app: App) -> int:
    if args.serial and not (app.stdin.isatty() and app.out.stream.isatty()):
        raise UsageError("the serial console needs a terminal", hint="without one: bake run IMAGE -- COMMAND, or bake logs BUILD --console")
    wish = wish_of(args.commit, args.message) if args.commit else None
    if wish and args.layer:
        raise UsageError("--commit needs an image: a layer holds programs that run", hint="bake shell IMAGE --commit NAME@VERSION")
    with ExitStack() as after:
        taken = _inside(args, app, after if wish else None)
        if wish and taken:
            show(app, app.baker(app.sink).commit(taken, wish), json=False)
    return 0


def _inside(args: argparse.Namespace, app: App, after: ExitStack | None) -> CommitSource | None:
    """Be in the machine. With `after`: what it has on its disk then, there until that ends."""
    with machine(args, app) as running:
        for url in urls(running):
            app.note(url)
        if not args.serial:
            app.note(f"{running.title}, a throw-away machine ({shlex.join(running.ssh)}); leave with `exit`")
            if running.id:
                app.note(f"its id is {running.id}: bake diff {args.image} shell:{running.id}, bake commit {running.id}")
            process.interactive(running.ssh, env={"TERM": app.env.get("TERM", "dumb")})
            return after.enter_context(app.baker(app.sink).take(running.id)) if after else None
        console = getattr(running.machine, "serial", None)
        if console is None:
            raise HostError("machines of this builder have no serial console to attach to")
        from baker.cli.serial import attach

        app.note("the serial console; Enter for a prompt, leave with Ctrl-]")
        attach(console, app.stdin, app.out.stream)
        return after.enter_context(app.baker(app.sink).take(running.id)) if after else None
