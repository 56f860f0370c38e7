"""Write an image with its whole record and those of its ancestors as one file: disks, inputs, downloads, logs, attestations, public keys.
Another host can import the file (`bake import`) and rebuild the image without network (`bake rebuild`). It contains no secrets: the values
of secret variables are never recorded."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.render.text import plural, size

EXAMPLES = """
  bake archive web
  bake archive web@1.4.0 -o /mnt/backup/    write /mnt/backup/web-1.4.0.bake
  tar tf web-1.4.0.bake                     list its content: it is a tar file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="FILE",
        help="the file or directory to write (default: NAME-VERSION.bake in this directory)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_json(parser, "print what was written as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        written = app.baker(shown).archives.write(args.image, args.output, overwrite=args.overwrite)
    if args.json:
        app.json(asdict(written) | {"path": str(written.path)})
    elif app.quiet:
        app.line(str(written.path))
    else:
        count = f"{plural(written.images, 'image')}, {plural(written.blobs, 'blob')}"
        app.line(f"wrote {written.path} ({size(written.size)}: {count}; manifest {written.digest})")
    return 0
