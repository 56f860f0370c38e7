"""Print a completion script for a shell: commands, options, files, and image names."""

from __future__ import annotations

import argparse
import importlib

from baker.cli.app import App
from baker.cli.main import VERBS
from baker.cli.options import Parser, add_common
from baker.core.errors import HostError

EXAMPLES = """
  bake completion bash > ~/.local/share/bash-completion/completions/bake
  bake completion zsh > "${fpath[1]}/_bake"
  bake completion fish > ~/.config/fish/completions/bake.fish
"""
SHELLS = ("bash", "zsh", "fish", "tcsh")
FILES = frozenset({"files", "var_file", "output", "home", "directory"})
IMAGES = frozenset({"image", "images"})
NAMES = "bake images --names 2>/dev/null"
PREAMBLE = {
    "bash": f'_bake_images() {{\n  compgen -W "$({NAMES})" -- "$1"\n}}\n',
    "zsh": f'_bake_images() {{\n  local -a names\n  names=(${{(f)"$({NAMES})"}})\n  compadd -a names\n}}\n',
    "fish": "",
    "tcsh": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def run(args: argparse.Namespace, app: App) -> int:
    import shtab

    if args.shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise HostError(
            f"the installed version of shtab does not support {args.shell}", hint=f"it supports {known}", code="host.library-outdated"
        )
    app.line(shtab.complete(parser(), args.shell, preamble=PREAMBLE[args.shell]).rstrip())
    return 0


def parser() -> argparse.ArgumentParser:
    """One parser with all verbs, and how each argument is completed."""
    import shtab

    top = Parser(prog="bake", description="build machine images")
    top.add_argument("--version", action="store_true", help="print the version")
    add_common(top)
    verbs = top.add_subparsers(dest="verb")
    for verb, (module, text) in VERBS.items():
        below = verbs.add_parser(verb, help=text, description=text)
        importlib.import_module(module).add_arguments(below)
        add_common(below)
        for action in below._actions:
            if action.dest in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in IMAGES:
                action.complete = {"bash": "_bake_images", "zsh": "_bake_images"}  # type: ignore[attr-defined]
    return top
