"""Print the AMI of an image in a region, its digest, or its id, for scripts. --external implements the protocol of the external data source
of Terraform."""

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
QUERY = ("image", "region", "kind")  # keys of the query of --external


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@channel, name@version, name@^1.2, id or digest")
    parser.add_argument("--region", metavar="REGION", help="the region of the AMI (default: AWS_REGION, or the only region with an AMI)")
    parser.add_argument("--kind", choices=KINDS, default="ami", help="what to print (default: ami)")
    parser.add_argument(
        "--external", action="store_true", help="read a JSON query (image, region, kind) from stdin, print a JSON object of strings"
    )
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    query = {"image": args.image or "", "region": args.region or "", "kind": args.kind}
    if args.external:
        query |= _query(app.stdin.read())
    if not query["image"]:
        hint = "bake resolve web@prod" + (', or "image" in the query' if args.external else "")
        raise UsageError("no image is named", hint=hint, code="usage.missing-argument")
    if query["kind"] not in KINDS:
        hint = f"use one of {', '.join(KINDS)}"
        raise UsageError(f"the query has the unknown kind {query['kind']!r}", hint=hint, code="usage.bad-query")
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
    """A flat map of strings, the only form that Terraform accepts
    (https://registry.terraform.io/providers/hashicorp/external/latest/docs/data-sources/external)."""
    answer = {"value": value, "image": image.id, "name": image.name, "version": image.version, "digest": image.digest}
    if publication:
        answer |= {"ami": publication.reference, "region": publication.region, "account": publication.account}
    return answer


def _publication(catalog: Catalog, image: ImageRecord, region: str) -> Publication:
    """The newest AMI in `region`, or without a region, in the only region that has one. Never the AMI of another region."""
    there = catalog.publications(image.id, kind="ami")
    if not region and len({one.region for one in there}) == 1:
        region = there[0].region
    fitting = [one for one in there if one.region == region]
    name, regions = f"{image.name}@{image.version} ({image.id})", ", ".join(sorted({one.region for one in there}))
    if not there:
        raise NotFoundError(f"{name} has no AMI", hint=f"bake publish {image.name}@{image.version} --to ami", code="image.no-ami")
    if not region:
        raise UsageError(
            f"{name} has AMIs in several regions: {regions}", hint="choose one with --region REGION", code="usage.ambiguous-region"
        )
    if not fitting:
        raise NotFoundError(f"{name} has no AMI in {region}", hint=f"it has AMIs in {regions}", code="image.no-ami-in-region")
    return max(reversed(fitting), key=lambda one: one.created)


def _query(text: str) -> Mapping[str, str]:
    example = 'for example: {"image": "web@prod", "region": "eu-west-1"}'
    try:
        query = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the query on stdin is not valid JSON: {error}", hint=example, code="usage.bad-query") from error
    if not isinstance(query, dict) or not all(isinstance(value, str) for value in query.values()):
        raise UsageError("the query on stdin is not a JSON object of strings", hint=example, code="usage.bad-query")
    unknown = sorted(set(query) - set(QUERY))
    if unknown:
        hint = f"it may have the keys {', '.join(QUERY)}"
        raise UsageError(f"the query has unknown keys: {', '.join(map(repr, unknown))}", hint=hint, code="usage.bad-query")
    return {name: value for name, value in query.items() if value}
