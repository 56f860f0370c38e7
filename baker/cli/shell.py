"""Open a shell in an ephemeral machine of an image, over SSH or on its serial console. At the end of the shell the machine is removed with
all changes, unless --commit makes an image of them."""

from __future__ import annotations

import argparse
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.commit import options_of, show
from baker.cli.machines import add_machine_options, machine, urls
from baker.core import process
from baker.core.errors import HostError, UsageError

if TYPE_CHECKING:
    from baker.sessions.commit import CommitSource

EXAMPLES = """
  bake shell web
  bake shell web --user debian -p 8080:80
  bake shell --layer web@3         restore the machine after step 3 of the last build
  bake shell web --commit web@1.0.1 -m "a hotfix"
  bake shell web --serial          open the serial console; leave it with Ctrl-]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_machine_options(parser)
    parser.add_argument(
        "--commit",
        metavar="NAME@VERSION",
        help="on leaving, make an image of the machine (`bake commit` does so while the shell goes on)",
    )
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="with --commit: the reason, kept on record")
    parser.add_argument("--serial", action="store_true", help="open the serial console instead of SSH; leave it with Ctrl-]")


def run(args: argparse.Namespace, app: App) -> int:
    if args.serial and not (app.stdin.isatty() and app.out.stream.isatty()):
        hint = "without a terminal use `bake run IMAGE -- COMMAND` or `bake logs BUILD --console`"
        raise UsageError("the serial console needs a terminal", hint=hint, code="usage.needs-terminal")
    options = options_of(args.commit, args.message) if args.commit else None
    if options and args.layer:
        hint = "bake shell IMAGE --commit NAME@VERSION"
        raise UsageError("--commit needs an image: a layer holds running programs", hint=hint, code="usage.conflicting-options")
    with ExitStack() as after:
        source = _run_shell(args, app, after if options else None)
        if options and source:
            show(app, app.baker(app.sink).commit(source, options), json=False)
    return 0


def _run_shell(args: argparse.Namespace, app: App, after: ExitStack | None) -> CommitSource | None:
    """Run the shell in a machine. With `after`, return a copy of its disk at the end of the shell; the copy lives as long as `after`."""
    with machine(args, app) as running:
        for url in urls(running):
            app.note(url)
        if not args.serial:
            app.note(f"shell in an ephemeral machine of {running.title} ({shlex.join(running.ssh)}); leave with `exit`")
            if running.id:
                app.note(f"shell id {running.id}, for `bake diff {args.image} shell:{running.id}` and `bake commit {running.id}`")
            process.interactive(running.ssh, env={"TERM": app.env.get("TERM", "dumb")})
            return after.enter_context(app.baker(app.sink).take(running.id)) if after else None
        console = getattr(running.machine, "serial", None)
        if console is None:
            raise HostError("machines of this builder have no serial console", hint="leave out --serial", code="machine.no-serial-console")
        from baker.cli.serial import attach

        app.note("serial console: press Enter for a prompt, leave with Ctrl-]")
        attach(console, app.stdin, app.out.stream)
        return after.enter_context(app.baker(app.sink).take(running.id)) if after else None
