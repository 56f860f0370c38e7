"""`bake`: the table of verbs. Imports next to nothing, so that `bake --help` is as fast as Python starts; a verb's module loads
when the verb is used."""

from __future__ import annotations

import gc
import os
import sys

# verb -> (module, one line of help)
VERBS = {
    "init": ("baker.cli.init", "write a first template, with its tests"),
    "validate": ("baker.cli.validate", "report every problem of templates"),
    "schema": ("baker.cli.schema", "print the JSON Schema of templates, for editors"),
    "plan": ("baker.cli.plan", "show what a build would do, and what exists already"),
    "build": ("baker.cli.build", "build images"),
    "lock": ("baker.cli.lock", "write the lock file of a template"),
    "outdated": ("baker.cli.outdated", "list images whose inputs or parent images have newer versions"),
    "test": ("baker.cli.test", "build and test a template without registering an image"),
    "images": ("baker.cli.images", "list images"),
    "show": ("baker.cli.show", "show the whole record of an image"),
    "history": ("baker.cli.history", "show the lineage of an image as a tree"),
    "diff": ("baker.cli.diff", "compare two images, layers or shells"),
    "why": ("baker.cli.why", "find the step that put a file or package into an image"),
    "audit": ("baker.cli.audit", "show how an image was built and used, and check it"),
    "logs": ("baker.cli.logs", "print the log of a build, or list the latest builds"),
    "sbom": ("baker.cli.sbom", "print the bill of materials: CycloneDX or SPDX"),
    "rebuild": ("baker.cli.rebuild", "rebuild an image from its record, and compare"),
    "attest": ("baker.cli.attest", "sign the provenance of an image"),
    "verify": ("baker.cli.verify", "check record, disk, signatures, lineage and a policy"),
    "keys": ("baker.cli.keys", "manage signing keys and trusted keys"),
    "run": ("baker.cli.run", "run an ephemeral machine with its ports on this host"),
    "shell": ("baker.cli.shell", "open a shell in an ephemeral machine"),
    "commit": ("baker.cli.commit", "make an image of a running shell"),
    "export": ("baker.cli.export", "write an image as one disk image or tar file"),
    "archive": ("baker.cli.archive", "write an image with its whole record as one file"),
    "import": ("baker.cli.import_", "import an archive of `bake archive`"),
    "publish": ("baker.cli.publish", "publish an image to a cloud, such as --to ami"),
    "channel": ("baker.cli.channel", "show a channel with its history, or change it"),
    "channels": ("baker.cli.channels", "list channels"),
    "revoke": ("baker.cli.revoke", "revoke an image, so that it is refused everywhere"),
    "release": ("baker.cli.release", "release the image of a channel to a target"),
    "releases": ("baker.cli.releases", "list releases and their results"),
    "rollback": ("baker.cli.rollback", "release the image of an earlier release again"),
    "resolve": ("baker.cli.resolve", "print AMI, digest or id, for scripts and Terraform"),
    "lifecycle": ("baker.cli.lifecycle", "deprecate, disable or deregister unused AMIs"),
    "rm": ("baker.cli.rm", "remove images"),
    "sweep": ("baker.cli.sweep", "clean up after killed builds"),
    "du": ("baker.cli.du", "show disk usage"),
    "gc": ("baker.cli.gc", "remove the least valuable layers and downloads"),
    "doctor": ("baker.cli.doctor", "check this host, with a fix for each problem"),
    "completion": ("baker.cli.completion", "print a completion script for a shell"),
}
GROUPS = (
    ("Templates", ("init", "validate", "schema", "plan")),
    ("Building", ("build", "lock", "outdated", "test")),
    ("Inspecting", ("images", "show", "history", "diff", "why", "audit", "logs")),
    ("Trust", ("rebuild", "sbom", "attest", "verify", "keys")),
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
  2  wrong command line or template     7  in use by somebody else
  3  the build or release failed        8  does not agree with its lock file
  4  a test or check failed           130  interrupted (SIGINT)
                                      143  terminated (SIGTERM)"""
OPTIONS = """\
  -h, --help        show this text; after a command, its options
  --version         print the version
  --home DIR        store everything below DIR (or: BAKE_HOME)
  -q, --quiet       print only the result
  -v, --verbose     show every line that a build prints
  --debug           show more messages, and tracebacks of errors
  --no-color        print without colours (or: NO_COLOR, CLICOLOR=0)"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return the exit code."""
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
    """The options before the verb, the verb ("" without one), and everything after it."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        position += 2 if arguments[position] == "--home" else 1
    position = min(position, len(arguments))
    return arguments[:position], arguments[position] if position < len(arguments) else "", arguments[position + 1 :]


def help_text() -> str:
    """What `bake --help` prints."""
    lines = ["bake: build verified machine images from versioned templates, and keep their history", ""]
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
