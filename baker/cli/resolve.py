"""Print what an image is called somewhere: its AMI in a region, its digest, its id. For scripts; --external speaks the protocol of
Terraform's external data source."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord, Publication

EXAMPLES = """
  bake resolve web@prod --region eu-west-1
  bake resolve web@^1.4 --kind digest
  echo '{"image": "web@prod", "region": "eu-west-1"}' | bake resolve --external
"""
KINDS = ("ami", "digest", "id")
QUERY = ("image", "region", "kind")  # what --external reads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@channel, name@version, name@^1.2, id or digest")
    parser.add_argument("--region", metavar="REGION", help="of the AMI (default: AWS_REGION, or the only region there is one in)")
    parser.add_argument("--kind", choices=KINDS, default="ami", help="what to print (default: ami)")
    parser.add_argument(
        "--external", action="store_true", help="read a JSON query from stdin (image, region, kind), answer JSON of strings"
    )
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    query = {"image": args.image or "", "region": args.region or "", "kind": args.kind}
    if args.external:
        query |= _query(app.stdin.read())
    if not query["image"]:
        raise UsageError("which image?", hint="bake resolve web@prod" + (', or "image" in the query' if args.external else ""))
    if query["kind"] not in KINDS:
        raise UsageError(f"{query['kind']!r} is no kind of name", hint=f"one of {', '.join(KINDS)}")
    catalog = app.baker().catalog
    image = catalog.resolve(query["image"])
    catalog.check_usable(image, "any more")
    region = query["region"] or app.env.get("AWS_REGION") or app.env.get("AWS_DEFAULT_REGION") or ""
    publication = _publication(catalog, image, region) if query["kind"] == "ami" else None
    value = publication.reference if publication else image.digest if query["kind"] == "digest" else image.id
    if args.external or args.json:
        app.json(_answer(image, publication, value))
    else:
        app.line(value)
    return 0


def _answer(image: ImageRecord, publication: Publication | None, value: str) -> dict[str, str]:
    """A flat map of strings, which is all that Terraform takes
    (https://registry.terraform.io/providers/hashicorp/external/latest/docs/data-sources/external)."""
    found = {"value": value, "image": image.id, "name": image.name, "version": image.version, "digest": image.digest}
    if publication:
        found |= {"ami": publication.reference, "region": publication.region, "account": publication.account}
    return found


def _publication(catalog: Catalog, image: ImageRecord, region: str) -> Publication:
    """The newest AMI in `region`; where no region is known, of the only region that has one. Never another region's."""
    there = catalog.publications(image.id, kind="ami")
    if not region and len({one.region for one in there}) == 1:
        region = there[0].region
    fitting = [one for one in there if one.region == region]
    name, regions = f"{image.name}@{image.version} ({image.id})", ", ".join(sorted({one.region for one in there}))
    if not there:
        raise NotFoundError(f"{name} has no AMI", hint=f"bake publish {image.name}@{image.version} --to ami")
    if not region:
        raise UsageError(f"in which region? {name} has AMIs in {regions}", hint="--region REGION")
    if not fitting:
        raise NotFoundError(f"{name} has no AMI in {region}", hint=f"it has in {regions}")
    return max(reversed(fitting), key=lambda one: one.created)


def _query(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the query on stdin is no JSON: {error}", hint='{"image": "web@prod", "region": "eu-west-1"}') from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError("the query on stdin is no object of strings", hint='{"image": "web@prod", "region": "eu-west-1"}')
    unknown = sorted(set(found) - set(QUERY))
    if unknown:
        raise UsageError(f"the query has {', '.join(map(repr, unknown))}, which means nothing", hint=f"it may have {', '.join(QUERY)}")
    return {name: value for name, value in found.items() if value}
