"""Write an image with everything that is on record of it and of what it is made on: disks, inputs, everything that was fetched, logs,
statements, public keys. `bake import` takes the file in on another host, where `bake rebuild` makes the image again without network.
Nothing secret is in it: values of secret variables are on no record."""

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
  bake archive web@1.4.0 -o /mnt/backup/    as /mnt/backup/web-1.4.0.bake
  tar tf web-1.4.0.bake                     it is a tar file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="FILE", help="a file or a directory (default: NAME-VERSION.bake here)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    add_json(parser, "what was written, as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        written = app.baker(shown).archives.write(args.image, args.output, overwrite=args.overwrite)
    if args.json:
        app.json(asdict(written) | {"path": str(written.path)})
    elif app.quiet:
        app.line(str(written.path))
    else:
        count = f"{plural(written.images, 'image')}, {plural(written.blobs, 'blob')}"
        app.line(f"wrote {written.path} ({size(written.size)}: {count}; its manifest is {written.digest})")
    return 0
