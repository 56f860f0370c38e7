"""Sign where an image comes from: an in-toto statement with SLSA provenance in a DSSE envelope, kept with its record."""

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
  bake attest web --key ci             another key than the default one
  bake attest web --list               what was signed about it
  bake attest web --statement | jq .   the statement as its record gives it now, unsigned
  bake attest web --envelope > web.intoto.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument(
        "--key", default="", metavar="NAME", help="a key of this host, or PLUGIN:KEY (default: the one `bake keys list` says)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list what was signed, sign nothing")
    what.add_argument("--statement", action="store_true", help="print the statement, sign nothing")
    what.add_argument("--envelope", action="store_true", help="print the envelopes that there are, one per line, sign nothing")
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
        found = baker.catalog.attestations.of(image.id)
        if args.json:
            statements = [{**vars(each), "statement": envelope_of(each, baker.store).statement} for each in found]
            app.json(statements)
        elif not found:
            app.note(f"nobody has signed anything about {image.name}@{image.version}")
        else:
            rows = [(each.predicate, each.keyid[:16], each.who, each.at, short(each.digest)) for each in found]
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
