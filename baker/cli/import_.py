"""Take in an image that `bake archive` wrote, with everything that is on record of it. Every digest is checked before anything is
registered; it is taken in whole or not at all, and once more changes nothing.

(docker and podman call this `load`; what they call `import`, a disk or a tar without a record, is `source: {file: ...}` in a template.)"""

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
  bake import web-1.4.0.bake --trust    and its keys: only for a file from somebody whom you trust
  bake import web-1.4.0.bake --home /tmp/elsewhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="what bake archive wrote")
    parser.add_argument("--trust", action="store_true", help="check signatures with the public keys in it from now on")
    parser.add_argument("--force", action="store_true", help="even if another disk has the name and version of one of its images here")
    add_json(parser, "what was taken in, as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        found = app.baker(shown).archives.read(args.file, beside=args.force, trust=args.trust)
    image = found.bundle.image
    if args.json:
        new = asdict(found.taken) | {"images": [each.id for each in found.taken.images]}
        signers = [asdict(each) for each in found.signers]
        app.json({"image": image.id, "name": image.name, "version": image.version, "manifest": found.digest, "new": new, "keys": signers})
    elif app.quiet:
        app.line(image.id)
    else:
        app.lines(list(_lines(found)))
    return 0


def _lines(found: Imported) -> Iterator[str]:
    taken, image = found.taken, found.bundle.image
    title = f"{image.name}@{image.version} ({image.id})"
    if taken.nothing:
        yield f"{title} and all that is in the archive is here already"
    else:
        counts = [
            (len(taken.images), "image"),
            (taken.attestations, "statement"),
            (taken.rebuilds, "rebuild"),
            (taken.revocations, "revocation"),
        ]
        yield f"took in {title}: {', '.join(plural(count, what) for count, what in counts if count)}"
    for each in taken.images:
        if each.id != image.id:
            yield f"  made on {each.name}@{each.version} ({each.id})"
    for signer in found.signers:
        if not signer.trusted:
            yield f"  signed with {clean(signer.name)} ({signer.keyid[:16]}), which nobody here trusts (--trust; bake keys trust)"
