"""SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3/): the document describes the image, which contains the components that it added
and is a descendant of its parent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from cyclonedx.spdx import is_expression

from baker.catalog.records import ImageRecord
from baker.core.version import VERSION
from baker.trust.sbom.bill import Bill
from baker.trust.sbom.components import Component

DOCUMENT = "SPDXRef-DOCUMENT"
NOTHING = "NOASSERTION"


def write(bill: Bill) -> str:
    """The document: the same text for the same image."""
    image = bill.image
    packages: list[dict[str, Any]] = []
    relations = [_relation(DOCUMENT, "DESCRIBES", _image_id(image))]
    for number, level in enumerate(bill.levels):
        packages.append(_image(level.image))
        if number:
            relations.append(_relation(_image_id(bill.levels[number - 1].image), "DESCENDANT_OF", _image_id(level.image)))
        for each in level.components:
            packages.append(_package(each))
            relations.append(_relation(_image_id(level.image), "CONTAINS", _component_id(each)))
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": f"{image.name}@{image.version}",
        "documentNamespace": f"urn:bake:spdx:{image.id}:{image.digest.removeprefix('sha256:')}",
        "creationInfo": {"created": image.created, "creators": [f"Tool: bake-{VERSION}"]},
        "packages": packages,
        "relationships": relations,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _image(image: ImageRecord) -> dict[str, Any]:
    return {
        **_named(image.name, image.version, _image_id(image)),
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image.digest.removeprefix("sha256:")}],
        "comment": f"bake image {image.id}",
    }


def _package(each: Component) -> dict[str, Any]:
    return {
        **_named(each.name, each.version, _component_id(each)),
        **dict(_licence(each)),
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": each.purl}],
        **({"sourceInfo": f"found at {each.path}"} if each.path else {}),
    }


def _licence(each: Component) -> Iterator[tuple[str, str]]:
    """The declared licence where it is an SPDX expression, else a comment with the author's words."""
    known = bool(each.licence) and is_expression(each.licence)
    yield "licenseDeclared", each.licence if known else NOTHING
    if each.licence and not known:
        yield "licenseComments", f"declared as: {each.licence}"


def _named(name: str, version: str, identifier: str) -> dict[str, Any]:
    version_info = {"versionInfo": version} if version else {}
    return {
        "name": name,
        "SPDXID": identifier,
        **version_info,
        "downloadLocation": NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING,
        "copyrightText": NOTHING,
    }


def _relation(one: str, what: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": what, "relatedSpdxElement": other}


def _image_id(image: ImageRecord) -> str:
    return f"SPDXRef-Image-{image.id}"


def _component_id(each: Component) -> str:
    """An SPDX identifier, of letters, digits, dots and dashes; the digest tells apart names that would become the same."""
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", each.name).strip("-")
    return f"SPDXRef-{each.kind}-{short}-{hashlib.sha256(f'{each.purl} {each.path}'.encode()).hexdigest()[:12]}"
