"""What software is in an image, as a bill of materials: packages of the system, of Python and Node.js, read from its disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from baker.cli.app import App
from baker.core.errors import HostError
from baker.trust.sbom.bill import FORMATS, bill
from baker.trust.sbom.formats import write

EXAMPLES = """
  bake sbom web > web.cdx.json
  bake sbom web --format spdx -o web.spdx.json
  bake sbom web | jq -r '.. | .purl? // empty'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="CycloneDX 1.6 or SPDX 2.3, as JSON (default: cyclonedx)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    found = bill(baker.catalog.resolve(args.image), baker.catalog, baker.store)
    for note in found.notes:
        app.note(note)
    text = write(found, args.format)
    if args.output is None:
        app.out.stream.write(text)
        return 0
    try:
        args.output.write_text(text)
    except OSError as error:
        raise HostError(f"cannot write {args.output}: {error.strerror}") from error
    app.note(f"{args.output}: {sum(len(level.components) for level in found.levels)} components")
    return 0
