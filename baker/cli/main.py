"""`bake`: the table of verbs. Imports next to nothing, so that `bake --help` is as fast as Python starts; a verb's module loads
when the verb is used."""

from __future__ import annotations

import gc
import os
import sys

# verb -> (module, what it does)
VERBS = {
    "init": ("baker.cli.init", "write a first template, with its tests"),
    "validate": ("baker.cli.validate", "report every problem in templates"),
    "schema": ("baker.cli.schema", "print the JSON Schema of templates, for editors"),
    "plan": ("baker.cli.plan", "show what a build would do, and what exists already"),
    "build": ("baker.cli.build", "bake images"),
    "lock": ("baker.cli.lock", "write the exact inputs of a template's image to its lock file"),
    "outdated": ("baker.cli.outdated", "list images that have newer inputs or a newer parent"),
    "test": ("baker.cli.test", "build and test a template without making an image; --idempotent: twice"),
    "images": ("baker.cli.images", "list images"),
    "show": ("baker.cli.show", "show everything that is on record about an image"),
    "history": ("baker.cli.history", "show an image's ancestors and their steps, as a tree"),
    "diff": ("baker.cli.diff", "compare two images, layers or shells"),
    "why": ("baker.cli.why", "show which step put a file or a package into an image"),
    "audit": ("baker.cli.audit", "show how an image was made and what became of it, checked now"),
    "logs": ("baker.cli.logs", "show a build's log; without a name, list the latest builds"),
    "sbom": ("baker.cli.sbom", "list the software in an image: CycloneDX or SPDX"),
    "rebuild": ("baker.cli.rebuild", "build an image again from its record, and compare"),
    "attest": ("baker.cli.attest", "sign the provenance of an image"),
    "verify": ("baker.cli.verify", "check an image's record, disk, signatures and lineage, and a policy"),
    "keys": ("baker.cli.keys", "manage signing keys and trusted keys"),
    "run": ("baker.cli.run", "start an ephemeral machine from an image, with its ports on this host"),
    "shell": ("baker.cli.shell", "open a shell in an ephemeral machine"),
    "commit": ("baker.cli.commit", "make an image of a shell's machine, changed by hand"),
    "export": ("baker.cli.export", "write an image as one file"),
    "archive": ("baker.cli.archive", "write an image with all its records as one file"),
    "import": ("baker.cli.import_", "import an image that bake archive wrote"),
    "publish": ("baker.cli.publish", "publish an image to a cloud: --to ami"),
    "channel": ("baker.cli.channel", "show a channel with its history, or point it to an image"),
    "channels": ("baker.cli.channels", "list channels"),
    "revoke": ("baker.cli.revoke", "revoke an image, so that nothing uses it any more"),
    "release": ("baker.cli.release", "release a channel's image to an auto-scaling group or another target"),
    "releases": ("baker.cli.releases", "list releases: what was released where, and how it ended"),
    "rollback": ("baker.cli.rollback", "release the image of an earlier release again"),
    "resolve": ("baker.cli.resolve", "print an image's AMI, digest or id, for scripts and Terraform"),
    "lifecycle": ("baker.cli.lifecycle", "deprecate, disable and deregister AMIs that nothing uses any more"),
    "rm": ("baker.cli.rm", "remove images"),
    "sweep": ("baker.cli.sweep", "clean up after killed builds"),
    "du": ("baker.cli.du", "show what uses how much disk space"),
    "gc": ("baker.cli.gc", "free disk space: the least valuable layers first, never an image"),
    "doctor": ("baker.cli.doctor", "check this host, with a fix for each finding"),
    "completion": ("baker.cli.completion", "print a completion script for a shell"),
}
GROUPS = (
    ("Templates", ("init", "validate", "schema", "plan")),
    ("Baking", ("build", "lock", "outdated", "test")),
    ("Looking", ("images", "show", "history", "diff", "why", "audit", "logs")),
    ("Trusting", ("rebuild", "sbom", "attest", "verify", "keys")),
    ("Using", ("run", "shell", "commit", "export", "archive", "import", "publish")),
    ("Releasing", ("channel", "channels", "revoke", "release", "releases", "rollback", "resolve")),
    ("Upkeep", ("lifecycle", "rm", "sweep", "du", "gc", "doctor", "completion")),
)
# Objects between two runs of the collector of cycles. Python's own 700 makes it a tenth of what a short command does, for nothing: what
# imports and reading allocate stays. 50,000 objects in cycles that nobody needs any more are a few MiB at most.
YOUNG = 50_000
EXIT_CODES = """\
  0  success                            5  no such image or build
  1  an error in bake itself            6  this host lacks something
  2  wrong command line or template     7  somebody else uses it now
  3  the build or release failed        8  it is not what its lock says
  4  failed its tests or checks       130  interrupted (SIGINT)
                                      143  terminated (SIGTERM)"""
OPTIONS = """\
  -h, --help        this text; after a command, that command's options
  --version         print the version
  --home DIR        keep everything below DIR (also: BAKE_HOME)
  -q, --quiet       only what was asked for
  -v, --verbose     every line that a build prints
  --debug           more messages, and tracebacks
  --no-color        no colours (also: NO_COLOR, CLICOLOR=0)"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    flags, verb, rest = split(arguments)
    if "--version" in flags:
        from baker.core.version import VERSION

        return _say(f"bake {VERSION}")
    if verb == "help":
        verb, rest = (rest[0], ["--help"]) if rest else ("", [])
        flags = flags if verb else ["--help"]
    if not verb or "-h" in flags or "--help" in flags:
        asked = "-h" in flags or "--help" in flags
        return _say(help_text()) if asked else 2 + _say(help_text(), error=True)
    if verb not in VERBS:
        return _unknown(verb)
    gc.set_threshold(YOUNG)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # they would cost a look at every installed package
    from baker.cli.runner import execute

    return execute(verb, VERBS[verb][0], [*flags, *rest])


def split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    """Flags before the verb, the verb ("" without one), everything after it."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        position += 2 if arguments[position] == "--home" else 1
    position = min(position, len(arguments))
    return arguments[:position], arguments[position] if position < len(arguments) else "", arguments[position + 1 :]


def help_text() -> str:
    """What `bake --help` prints."""
    lines = ["bake: versioned templates in, verified machine images with their history out", ""]
    lines += ["usage: bake [options] COMMAND ...", "       bake COMMAND --help", ""]
    for title, verbs in GROUPS:
        lines += [f"{title}:", *(f"  {verb:<12}{VERBS[verb][1]}" for verb in verbs), ""]
    lines += ["Options (before or after the command):", OPTIONS, "", "Exit codes:", EXIT_CODES, ""]
    return "\n".join([*lines, "First steps: bake doctor; bake init web; bake build web/web.yaml; bake run web"])


def _unknown(verb: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, 1)
    hint = f"did you mean `bake {near[0]}`?" if near else "`bake --help` lists the commands"
    return 2 + _say(f"bake: there is no command {verb!r}\n    {hint}", error=True)


def _say(text: str, *, error: bool = False) -> int:
    stream = sys.stderr if error else sys.stdout
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python complains again at its end
    return 0
