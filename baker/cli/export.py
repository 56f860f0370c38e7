"""Write an image as one file that can be used without bake."""

from __future__ import annotations

import argparse
from pathlib import Path

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.core.errors import UsageError
from baker.render.text import size

EXAMPLES = """
  bake export web --format qcow2 --compress zstd
  bake export web@1.4.0 --format vmdk --output web.vmdk
"""
FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi", "tar")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("--format", choices=FORMATS, default="qcow2", help="the file format (default: qcow2)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write (default: NAME-VERSION.FORMAT in this directory)"
    )
    parser.add_argument("--compress", choices=("none", "zlib", "zstd"), default="none", help="compression inside the file (default: none)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_json(parser, "print what was written as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        image = baker.catalog.resolve(args.image)
        path = args.output or Path(f"{image.name}-{image.version}.{args.format}")
        if path.exists() and not args.overwrite:
            raise UsageError(f"{path} exists already", hint="--overwrite replaces it, --output names another file", code="output.exists")
        written = baker.export(image.id, args.format, path, compress=args.compress, overwrite=args.overwrite)
    count = written.stat().st_size
    if args.json:
        app.json(
            {"image": image.id, "name": image.name, "version": image.version, "format": args.format, "path": str(written), "size": count}
        )
    else:
        app.line(str(written) if app.quiet else f"wrote {written} ({args.format}, {size(count)})")
    return 0
