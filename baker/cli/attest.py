"""Sign the provenance of an image: an in-toto statement with SLSA provenance in a DSSE envelope, stored with the record of the image."""

from __future__ import annotations

import argparse
import json

from baker.cli.app import App
from baker.cli.options import add_json
from baker.render.text import short
from baker.trust.attest import provenance
from baker.trust.attest.signing import attest, envelope_of, provenance_of

EXAMPLES = """
  bake attest web
  bake attest web --key ci             sign with a key that is not the default
  bake attest web --list               list the attestations of the image
  bake attest web --statement | jq .   show the statement without signing it
  bake attest web --envelope > web.intoto.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument(
        "--key", default="", metavar="NAME", help="a key of this host, or PLUGIN:KEY (default: the default key of `bake keys list`)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the attestations; sign nothing")
    what.add_argument("--statement", action="store_true", help="print the statement; sign nothing")
    what.add_argument("--envelope", action="store_true", help="print the existing envelopes, one per line; sign nothing")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    trust, image = baker.trust, baker.catalog.resolve(args.image)
    if args.statement:
        app.line(provenance_of(image, trust, baker.catalog.journal.head()).decode())
        return 0
    if args.envelope:
        for each in baker.catalog.attestations.of(image.id):
            with baker.store.open(each.digest) as file:
                app.line(file.read().decode())
        return 0
    if args.list:
        attestations = baker.catalog.attestations.of(image.id)
        if args.json:
            statements = [{**vars(each), "statement": envelope_of(each, baker.store).statement} for each in attestations]
            app.json(statements)
        elif not attestations:
            app.note(f"{image.name}@{image.version} has no attestations")
        else:
            rows = [(each.predicate, each.keyid[:16], each.who, each.at, short(each.digest)) for each in attestations]
            app.lines(app.table(("predicate", "key", "who", "when", "envelope"), rows))
        return 0
    made = attest(image, trust, key=args.key)
    if args.json:
        app.json({**vars(made), "statement": json.loads(envelope_of(made, baker.store).payload)})
    else:
        app.line(
            made.digest
            if app.quiet
            else f"signed {provenance.PROVENANCE} of {image.name}@{image.version} ({image.id}), key {made.keyid[:16]}"
        )
    return 0
