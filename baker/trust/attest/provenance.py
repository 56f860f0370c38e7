"""The provenance of an image as an in-toto statement (Statement v1) with a SLSA provenance v1 predicate.

`resolvedDependencies` contains all inputs, each with a digest: the template and every file, the source, the downloads, and the image's
ancestors. The text is canonical JSON (RFC 8785), so that a build has exactly one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from baker.catalog.journal import canonical
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core.model import Fetched

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
REBUILD = "urn:bake:rebuild:v1"
BUILD_TYPE = "urn:bake:build:v1"
BUILDER = "urn:bake:builder"


def statement(image: ImageRecord, predicate_type: str, predicate: Any) -> bytes:
    """A statement about an image, as canonical JSON."""
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": f"{image.name}@{image.version}", "digest": _digest(image.digest), "annotations": {"id": image.id}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def provenance(
    image: ImageRecord, build: BuildRecord, ancestors: Sequence[ImageRecord], fetched: Iterable[Fetched], journal: Mapping[str, Any]
) -> bytes:
    """The statement about how an image was made.

    `ancestors` are its parent and so on, up to the root. `journal` has the serial and hash of the catalog's last journal entry; the
    signature thereby also covers that entry and all before it.
    """
    return statement(
        image,
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "template": {"name": build.template_name, "version": build.template_version, "digest": _digest(build.template_digest)},
                    "variables": {name: each.get("value") for name, each in build.variables.items()},
                },
                "internalParameters": {
                    "fingerprint": image.fingerprint,
                    "shape": dict(build.shape),
                    "reproduction": dict(build.reproduction),
                    "journal": dict(journal),
                    "steps": [{"name": step.name, "kind": step.kind, "key": step.key} for step in build.steps],
                },
                "resolvedDependencies": list(_dependencies(build, ancestors, fetched)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {name: str(value) for name, value in build.tools.items()}},
                "metadata": {"invocationId": build.id, "startedOn": build.started, "finishedOn": build.finished},
                "byproducts": [
                    {"name": name, "digest": _digest(digest)} for name, digest in build.evidence.items() if not name.startswith("body:")
                ],
            },
        },
    )


def _dependencies(build: BuildRecord, ancestors: Sequence[ImageRecord], fetched: Iterable[Fetched]) -> Iterator[dict[str, Any]]:
    if build.git_commit:
        yield {
            "uri": "git",
            "name": "template repository",
            "digest": {"gitCommit": build.git_commit},
            "annotations": {"dirty": build.git_dirty},
        }
    yield {"uri": f"file:{build.template_path}", "name": "template", "digest": _digest(build.template_digest)}
    for path, digest in sorted(build.inputs.items()):
        yield {"uri": f"file:{path}", "digest": _digest(digest)}
    if build.source.get("digest"):
        yield {
            "uri": f"source:{build.source.get('kind', '')}",
            "name": build.source.get("title", ""),
            "digest": _digest(str(build.source["digest"])),
            "annotations": dict(build.source.get("pins", {})),
        }
    for image in ancestors:
        yield {"uri": f"image:{image.name}@{image.version}", "digest": _digest(image.digest), "annotations": {"id": image.id}}
    seen = set()
    for each in fetched:
        if each.digest and (each.url, each.digest) not in seen:
            seen.add((each.url, each.digest))
            yield {"uri": each.url, "digest": _digest(each.digest)}


def _digest(text: str) -> dict[str, str]:
    """Convert "sha256:..." or 64 hex digits to a DigestSet of in-toto."""
    kind, colon, value = text.partition(":")
    return {kind: value} if colon else {"sha256": text}
