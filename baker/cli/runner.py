"""Run one verb: parse its command line, give it an App, and turn errors into text and an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from baker.cli.app import App, MakeBaker, home_and_env
from baker.cli.options import parser_for
from baker.cli.signals import interruptible
from baker.core.errors import BakeError, Interrupted, LockError, TemplateError, error_to_json
from baker.core.secrets import Secrets
from baker.render.terminal import Terminal

BROKEN_PIPE = 141  # as for a program that SIGPIPE ended
INTERNAL_ERROR = 1


def execute(
    verb: str,
    module_name: str,
    argv: Sequence[str],
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
    stdin: TextIO | None = None,
    env: Mapping[str, str] | None = None,
    make: MakeBaker | None = None,
) -> int:
    """Run `bake VERB ARGV...` and return the exit code. Streams and environment default to those of the process, `make` to the real API."""
    out, err, env = out or sys.stdout, err or sys.stderr, os.environ if env is None else env
    for stream in (out, err):
        _never_fail_on_characters(stream)
    no_color = "--no-color" in argv
    error = Terminal.of(err, env, no_color=no_color)
    args, app = argparse.Namespace(debug="--debug" in argv, json="--json" in argv, var=[], home=None), None
    try:
        module = importlib.import_module(module_name)
        args = parse(verb, module, argv)
        home, env = home_and_env(args.home, env)
        app = App(home, env, Terminal.of(out, env, no_color=no_color), error, stdin or sys.stdin)
        app.quiet, app.verbose, app.debug, app.make = args.quiet, args.verbose or args.debug, args.debug, make or app.make
        code = _guarded(module, args, app)
        out.flush()
    except SystemExit as exit_:  # argparse after --help
        return exit_.code if isinstance(exit_.code, int) else 0
    except BrokenPipeError:
        _forget(out)
        return BROKEN_PIPE
    except BakeError as problem:
        _print_json_error(problem, args, app, out)
        return report(problem, error, debug=args.debug)
    except Interrupted as problem:
        _print_json_error(problem, args, app, out)
        error.line("bake: interrupted")
        _notes(problem, error)
        return problem.exit_code
    except Exception as problem:  # noqa: BLE001 - the last resort: a bug, reported in one line
        return _internal_error(problem, error, args, env)
    return code


def parse(verb: str, module: Any, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of the verb. If it takes a command, everything after `--` becomes `command`."""
    arguments, command = list(argv), []
    if getattr(module, "TAKES_COMMAND", False) and "--" in arguments:
        cut = arguments.index("--")
        arguments, command = arguments[:cut], arguments[cut + 1 :]
    args = parser_for(verb, module).parse_intermixed_args(arguments)
    args.command = command
    return args


def _guarded(module: Any, args: argparse.Namespace, app: App) -> int:
    """Run the verb with signals as exceptions, and close everything at its end."""
    with interruptible(app.warn, app.stopping), ExitStack() as stack:
        app.stack = stack
        return int(module.run(args, app))


def _print_json_error(problem: BakeError | Interrupted, args: argparse.Namespace, app: App | None, out: TextIO) -> None:
    """With `--json`, print one line `{"error": {...}}` to stdout besides the text on stderr, unless the verb has written its document."""
    reported = app is not None and (app.documents or getattr(app.sink, "ended", False))  # by a document, or by an event
    if getattr(args, "json", False) and not reported:
        print(json.dumps({"error": error_to_json(problem)}), file=out, flush=True)


def report(problem: BakeError, error: Terminal, *, debug: bool = False) -> int:
    """Print an expected error with its code, and return its exit code."""
    if isinstance(problem, TemplateError | LockError):
        for one in problem.problems:
            first, *rest = str(one).split("\n")
            error.line("\n".join([f"{first} {error.paint(f'[{one.code}]', 'dim')}", *rest]))
        count, files = len(problem.problems), {one.file for one in problem.problems}
        where = next(iter(files)) if len(files) == 1 else f"{len(files)} files"
        error.line(f"{error.paint('bake:', 'red', 'bold')} {count} problem{'' if count == 1 else 's'} in {where}")
    else:
        error.line(f"{error.paint('bake:', 'red', 'bold')} {problem.message} {error.paint(f'[{problem.code}]', 'dim')}")
        if problem.hint:
            error.line(f"    {problem.hint}")
    _notes(problem, error)
    if debug:
        error.line("".join(traceback.format_exception(problem)).rstrip())
    return problem.exit_code


def _notes(problem: BaseException, error: Terminal) -> None:
    for note in getattr(problem, "__notes__", ()):
        error.line("    " + str(note).replace("\n", "\n    "))


def _internal_error(problem: Exception, error: Terminal, args: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Report a bug in one line, and keep the traceback in a file."""
    hidden = _possible_secrets(args, env)
    text = hidden.mask("".join(traceback.format_exception(problem)))
    summary = hidden.mask(f"{type(problem).__name__}: {problem}".splitlines()[0])
    error.line(f"{error.paint('bake:', 'red', 'bold')} internal error: {summary}")
    if args.debug:
        error.line(text.rstrip())
        return INTERNAL_ERROR
    path = _write_traceback(text, args.home, env)
    error.line(
        f"    {f'the traceback is in {path}' if path else 'run it again with --debug to see the traceback'}; please report it as a bug"
    )
    return INTERNAL_ERROR


def _possible_secrets(args: argparse.Namespace, env: Mapping[str, str]) -> Secrets:
    """Every variable value of this run, because any may be secret and a traceback may quote it."""
    from baker.core.crash_reports import possible_secrets

    values = {name: value for name, value in env.items() if name.startswith("BAKE_VAR_")}
    values |= {pair.partition("=")[0]: pair.partition("=")[2] for pair in getattr(args, "var", [])}
    return possible_secrets(values, getattr(args, "var_file", []), getattr(args, "files", []))


def _write_traceback(text: str, home_flag: Path | None, env: Mapping[str, str]) -> Path | None:
    from baker.core import crash_reports

    try:
        home, _ = home_and_env(home_flag, env)
    except BakeError:
        return None
    return crash_reports.keep(text, home.state)


def _never_fail_on_characters(stream: TextIO) -> None:
    """Make the stream write an escape for a character that its encoding lacks."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _forget(stream: TextIO) -> None:
    """Redirect a closed stream to /dev/null, so that the interpreter's last flush does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass
