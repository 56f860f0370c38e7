"""Import an image with its whole record from an archive of `bake archive`. Every digest is checked before anything is registered. The
import is complete or does nothing, and importing an archive again changes nothing.

Docker and podman call this `load`. To start from a disk or tar file without a record, use `source: {file: ...}` in a template."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.render.text import clean, plural

if TYPE_CHECKING:
    from baker.publish.archive.read import Imported

EXAMPLES = """
  bake import web-1.4.0.bake
  bake import web-1.4.0.bake --trust    trust its keys too: only if you trust its author
  bake import web-1.4.0.bake --home /tmp/elsewhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="an archive of `bake archive`")
    parser.add_argument("--trust", action="store_true", help="trust the public keys in the archive")
    parser.add_argument("--force", action="store_true", help="import even if name and version mean another disk here")
    add_json(parser, "print what was imported as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        imported = app.baker(shown).archives.read(args.file, beside=args.force, trust=args.trust)
    image = imported.bundle.image
    if args.json:
        new = asdict(imported.taken) | {"images": [each.id for each in imported.taken.images]}
        signers = [asdict(each) for each in imported.signers]
        app.json(
            {"image": image.id, "name": image.name, "version": image.version, "manifest": imported.digest, "new": new, "keys": signers}
        )
    elif app.quiet:
        app.line(image.id)
    else:
        app.lines(list(_lines(imported)))
    return 0


def _lines(imported: Imported) -> Iterator[str]:
    taken, image = imported.taken, imported.bundle.image
    title = f"{image.name}@{image.version} ({image.id})"
    if taken.nothing:
        yield f"{title} and everything else in the archive exists here already"
    else:
        counts = [
            (len(taken.images), "image"),
            (taken.attestations, "statement"),
            (taken.rebuilds, "rebuild"),
            (taken.revocations, "revocation"),
        ]
        yield f"imported {title}: {', '.join(plural(count, what) for count, what in counts if count)}"
    for each in taken.images:
        if each.id != image.id:
            yield f"  ancestor {each.name}@{each.version} ({each.id})"
    for signer in imported.signers:
        if not signer.trusted:
            yield f"  signed with {clean(signer.name)} ({signer.keyid[:16]}), which is not trusted here (see --trust and `bake keys trust`)"
