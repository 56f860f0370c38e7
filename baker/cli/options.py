"""Parsers, options and value conversions that several verbs share."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.plan.requests import BuildOptions, BuildRequest


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, with a suggestion for a mistyped option."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        if unknown:
            flags = {flag.lstrip("-"): flag for action in self._actions for flag in action.option_strings}
            near = difflib.get_close_matches(unknown[1].partition("=")[0].lstrip("-"), flags, 1)  # two dashes alike say nothing
            hint = f"did you mean {flags[near[0]]}?" if near else f"`{self.prog} --help` lists the options"
            raise UsageError(f"{self.prog} has no option {unknown[1]}", hint=hint, code="usage.unknown-option")
        raise UsageError(f"{self.prog}: {message}", hint=f"`{self.prog} --help` lists the options", code="usage.invalid")


def parser_for(verb: str, module: Any) -> Parser:
    """The parser of a verb: its own options, then the common ones. The module's docstring is the description, `EXAMPLES` the epilog."""
    paragraphs = (module.__doc__ or "").strip().split("\n\n")
    width = shutil.get_terminal_size().columns - 2  # as argparse does
    examples = getattr(module, "EXAMPLES", "").strip("\n")
    parser = Parser(
        prog=f"bake {verb}",
        description="\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs),
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    add_common(parser)
    parser.usage = f"bake {verb} [options]{_operands(parser)}" + (" [-- COMMAND ...]" if getattr(module, "TAKES_COMMAND", False) else "")
    return parser


def _operands(parser: argparse.ArgumentParser) -> str:
    """The operands of the usage line, such as ` FILE...` or ` [IMAGE]`."""
    shown = ""
    for action in parser._positionals._group_actions:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        shown += {"+": f" {name}...", "*": f" [{name}...]", "?": f" [{name}]"}.get(str(action.nargs), f" {name}")
    return shown


def add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument("--home", type=Path, metavar="DIR", help="store everything below DIR (or: BAKE_HOME)")
    group.add_argument("-q", "--quiet", action="store_true", help="print only the result")
    group.add_argument("-v", "--verbose", action="store_true", help="show every line that a build prints")
    group.add_argument("--debug", action="store_true", help="show more messages, and tracebacks of errors")
    group.add_argument("--no-color", action="store_true", help="print without colours (or: NO_COLOR, CLICOLOR=0)")


def add_json(parser: argparse.ArgumentParser, what: str = "print JSON instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide how a template is loaded: variables, and the choice of images and steps."""
    parser.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="set a variable (or: BAKE_VAR_NAME in the environment)"
    )
    parser.add_argument("--var-file", action="append", default=[], metavar="FILE", help="set variables from a YAML or JSON file")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="choose only images or steps with this name (may be repeated)"
    )
    parser.add_argument(
        "--except",
        action="append",
        default=[],
        dest="except_",
        metavar="NAME",
        help="leave out images or steps with this name (may be repeated)",
    )


def request_of(args: argparse.Namespace, file: str | Path, options: BuildOptions) -> BuildRequest:
    """The build request for the template `file`, from the options of `add_template_options`."""
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
    """The variables of `--var NAME=VALUE`, by name."""
    return pairs(texts, "--var", "NAME=VALUE", "site_title=Hello")


def pairs(texts: Iterable[str], flag: str, form: str, example: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; the last value of a name wins. UsageError for a text without name or `=`."""
    values: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{flag} takes {form}, not {text!r}", hint=f"for example: {flag} {example}", code="usage.bad-pair")
        values[name] = value
    return values


def listed(values: Iterable[str]) -> tuple[str, ...]:
    """The values of an option that may be repeated and takes comma-separated lists."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def positive(text: str) -> int:
    """A whole number above zero, as an argparse type."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def seconds(flag: str, text: str | None) -> float | None:
    """The value of a time option in seconds; None if the option was not given."""
    from baker.core.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"for example: {flag} 30d", code="usage.bad-time") from error
