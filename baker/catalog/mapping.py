"""Convert records to rows and back. Rows are those of models.py or of a Reader, which have the same attributes."""

from __future__ import annotations

from typing import Any, cast

from baker.catalog import tables
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.core.model import TestOutcome

IMAGE_COLUMNS = (
    "id", "name", "version", "digest", "fingerprint", "parent", "created", "size", "virtual_size", "verified", "build", "builder",
    "firmware", "ssh_username", "description", "labels", "matrix", "removed", "origin",
)  # fmt: skip
BUILD_COLUMNS = (
    "id", "status", "started", "finished", "template_name", "template_version", "template_path", "template_text", "template_digest",
    "git_commit", "git_dirty", "variables", "source", "shape", "machine", "host", "tools", "who", "ci", "timings", "inputs", "verify",
    "verify_key", "error", "fingerprint", "reproduction",
)  # fmt: skip
STEP_COLUMNS = ("name", "kind", "key", "origin", "bundle", "status", "seconds", "exit_code", "attempts", "ran", "inputs")


def image_row(record: ImageRecord) -> tables.Image:
    blobs = [tables.ImageBlob(position=position, digest=digest) for position, digest in enumerate(record.chain)]
    return tables.Image(**_plain(record, IMAGE_COLUMNS), blobs=blobs)


def image_record(row: Any) -> ImageRecord:
    return ImageRecord(**_plain(row, IMAGE_COLUMNS), chain=tuple(blob.digest for blob in row.blobs))


def build_row(record: BuildRecord) -> tables.Build:
    return tables.Build(
        **_plain(record, BUILD_COLUMNS),
        steps=[tables.Step(position=step.index, **_plain(step, STEP_COLUMNS)) for step in record.steps],
        tests=[
            tables.Test(position=position, name=test.name, outcome=test.outcome, seconds=test.seconds, message=test.message)
            for position, test in enumerate(record.tests)
        ],
        evidence=[
            tables.Evidence(position=position, name=name, digest=digest) for position, (name, digest) in enumerate(record.evidence.items())
        ],
    )


def build_record(row: Any) -> BuildRecord:
    return BuildRecord(
        **_plain(row, BUILD_COLUMNS),
        steps=tuple(StepRecord(index=step.position, **_plain(step, STEP_COLUMNS)) for step in row.steps),
        tests=tuple(TestOutcome(test.name, cast(Any, test.outcome), test.seconds, test.message) for test in row.tests),
        evidence={item.name: item.digest for item in row.evidence},
    )


def _plain(thing: object, names: tuple[str, ...]) -> dict[str, Any]:
    """The attributes `names` of a record or row; mappings become dicts, which is what JSON columns hold."""
    values = {name: getattr(thing, name) for name in names}
    return {name: dict(value) if hasattr(value, "items") else value for name, value in values.items()}
