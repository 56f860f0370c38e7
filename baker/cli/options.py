"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.plan.requests import BuildOptions, BuildRequest


class Parser(argparse.ArgumentParser):
    """argparse with our errors, and guesses for mistyped flags."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        if unknown:
            flags = {flag.lstrip("-"): flag for action in self._actions for flag in action.option_strings}
            near = difflib.get_close_matches(unknown[1].partition("=")[0].lstrip("-"), flags, 1)  # two dashes alike say nothing
            hint = f"did you mean {flags[near[0]]}?" if near else f"`{self.prog} --help` shows what it takes"
            raise UsageError(f"{self.prog} has no option {unknown[1]}", hint=hint)
        raise UsageError(f"{self.prog}: {message}", hint=f"`{self.prog} --help` shows what it takes")


def parser_for(verb: str, module: Any) -> Parser:
    """The parser of a verb's module: its own flags, then the common ones. The module's docstring describes it; `EXAMPLES` ends the help."""
    description = (module.__doc__ or "").strip()
    examples = getattr(module, "EXAMPLES", "").strip("\n")
    parser = Parser(
        prog=f"bake {verb}",
        description=description,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    add_common(parser)
    parser.usage = f"bake {verb} [options]{_operands(parser)}" + (" [-- COMMAND ...]" if getattr(module, "TAKES_COMMAND", False) else "")
    return parser


def _operands(parser: argparse.ArgumentParser) -> str:
    """` FILE...`, ` [IMAGE]`: what stands after the options; the options themselves are listed below it."""
    shown = ""
    for action in parser._positionals._group_actions:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        shown += {"+": f" {name}...", "?": f" [{name}]"}.get(str(action.nargs), f" {name}")
    return shown


def add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument("--home", type=Path, metavar="DIR", help="keep everything below DIR (also: BAKE_HOME)")
    group.add_argument("-q", "--quiet", action="store_true", help="only what was asked for")
    group.add_argument("-v", "--verbose", action="store_true", help="every line that a build prints")
    group.add_argument("--debug", action="store_true", help="more messages, and tracebacks")
    group.add_argument("--no-color", action="store_true", help="no colours (also: NO_COLOR, CLICOLOR=0)")


def add_json(parser: argparse.ArgumentParser, what: str = "JSON instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Variables and the choice of steps and matrix rows: everything that goes into loading a template."""
    parser.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="set a variable (or: BAKE_VAR_NAME in the environment)"
    )
    parser.add_argument("--var-file", action="append", default=[], metavar="FILE", help="set variables from a YAML or JSON file")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only the images or steps of this name (may be repeated)"
    )
    parser.add_argument("--except", action="append", default=[], dest="except_", metavar="NAME", help="without those of this name")


def request_of(args: argparse.Namespace, file: str | Path, options: BuildOptions) -> BuildRequest:
    """A request for the template `file`, with what `add_template_options` has parsed."""
    from baker.plan.requests import BuildRequest

    return BuildRequest(
        path=file,
        variables=variables(args.var),
        var_files=tuple(Path(each) for each in args.var_file),
        only=listed(args.only),
        except_=listed(args.except_),
        options=options,
    )


def variables(texts: Iterable[str]) -> dict[str, str]:
    """The values of --var."""
    return pairs(texts, "--var", "NAME=VALUE", "site_title=Hello")


def pairs(texts: Iterable[str], flag: str, form: str, example: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; the last one wins. UsageError for one without `=`."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{flag} takes {form}, not {text!r}", hint=f"for example: {flag} {example}")
        found[name] = value
    return found


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """Repeated and comma-separated values of one flag."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def positive(text: str) -> int:
    """A whole number above zero (an argparse type)."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return int(text)
