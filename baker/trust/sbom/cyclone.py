"""CycloneDX 1.6 JSON. The image is the subject; each ancestor is a component that contains the components which it added."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from baker.catalog.records import ImageRecord
from baker.core.version import VERSION
from baker.render.text import when
from baker.trust.sbom import components as found
from baker.trust.sbom.bill import Bill, Level


def write(bill: Bill) -> str:
    """The document: the same text for the same image."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"bake:{bill.image.id}:{bill.image.digest}"))
    made = when(bill.image.created)
    assert made is not None  # the catalog's own times
    bom.metadata.timestamp = made
    bom.metadata.tools.components.add(Component(name="bake", version=VERSION, type=ComponentType.APPLICATION))
    own, *above = bill.levels
    subject = _image(own.image)
    bom.metadata.component = subject
    parts = list(_components(own))
    bom.components.update(parts)
    bom.register_dependency(subject, parts)
    child = subject
    for level in above:
        base = _image(level.image)
        base.components.update(_components(level))
        bom.components.add(base)
        bom.register_dependency(child, [*(parts if child is subject else ()), base])
        child = base
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _image(image: ImageRecord) -> Component:
    return Component(
        name=image.name,
        version=image.version,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"image:{image.id}",
        description=image.description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest.removeprefix("sha256:"))],
        properties=[Property(name="bake:image", value=image.id)],
    )


def _components(level: Level) -> Iterable[Component]:
    licences = LicenseFactory()
    for each in level.components:
        properties = [Property(name="bake:image", value=level.image.id)]
        properties += [Property(name="bake:path", value=each.path)] if each.path else []
        yield Component(
            name=each.name,
            version=each.version,
            type=ComponentType.LIBRARY,
            bom_ref=_reference(each),
            purl=PackageURL.from_string(each.purl),
            licenses=[licences.make_from_string(each.licence)] if each.licence else (),
            properties=properties,
        )


def _reference(each: found.Component) -> str:
    """A purl, followed by the path of a component that may be installed twice."""
    return f"{each.purl}#{each.path.lstrip('/')}" if each.path else each.purl
