"""Print the bill of materials of an image: packages of the system, of Python and of Node.js, read from its disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from baker.cli.app import App
from baker.core.disk_space import host_error
from baker.trust.sbom.bill import FORMATS, bill
from baker.trust.sbom.formats import write

EXAMPLES = """
  bake sbom web > web.cdx.json
  bake sbom web --format spdx -o web.spdx.json
  bake sbom web | jq -r '.. | .purl? // empty'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="CycloneDX 1.6 or SPDX 2.3 as JSON (default: cyclonedx)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: stdout)")


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    materials = bill(baker.catalog.resolve(args.image), baker.catalog, baker.store)
    for note in materials.notes:
        app.note(note)
    text = write(materials, args.format)
    if args.output is None:
        app.out.stream.write(text)
        return 0
    try:
        args.output.write_text(text)
    except OSError as error:
        raise host_error(error, args.output) from error
    app.note(f"{args.output}: {sum(len(level.components) for level in materials.levels)} components")
    return 0
