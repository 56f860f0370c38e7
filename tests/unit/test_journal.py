"""The chain over all records: whatever is changed, added or taken away behind bake's back is named."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import rfc8785
from sqlalchemy import create_engine, text

from baker.catalog import database
from baker.catalog.catalog import Catalog
from baker.catalog.journal import canonical
from baker.catalog.records import Attestation, Publication, Release, Revocation
from tests.support.fake_app import a_build, an_image
from tests.support.journal import enter_all

AT = "2026-11-22T20:45:51Z"
BASE, WEB = an_image("debian-13", "13.1.0", 1), an_image("web", "1.4.0", 2, parent="a00000000001")
AMI = Publication(WEB.id, "ami", "ami-0abc", "eu-west-1", "123456789012", ("snap-1",), {"encrypted": True}, AT)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Everything that a catalog can register, registered."""
    catalog = Catalog(tmp_path / "catalog.sqlite")
    for image in (BASE, WEB):
        catalog.register(a_build(image, shape={"cpus": 2, "big": 1 << 60, "ratio": 1.0}), image, [AMI] if image is WEB else [])
    catalog.channels.set("web", "prod", WEB.id, who="me", at=AT)
    catalog.channels.set("web", "old", WEB.id, who="me", at=AT)
    catalog.channels.unset("web", "old", who="me", at=AT)
    catalog.revocations.add(Revocation(BASE.id, "CVE", "me", AT, AT))
    catalog.revocations.undo(BASE.id, who="me", at=AT)
    release = catalog.releases.begin(Release("web", 0, WEB.id, "prod", "asg/web", "running", "me", AT))
    catalog.releases.note(release, {"refresh": "r-1"})
    catalog.releases.finish(release, "succeeded", at=AT)
    catalog.attestations.add(Attestation(WEB.id, "https://slsa.dev/provenance/v1", "sha256:" + "a" * 64, "f" * 64, "me", AT))
    catalog.published.remove(AMI, at=AT)
    return catalog


def behind(catalog: Catalog, *statements: str) -> None:
    """Change the database with a tool of one's own."""
    with sqlite3.connect(str(catalog.place)) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def faults(catalog: Catalog, images: Sequence[str] | None = None) -> list[str]:
    return [fault.message for fault in catalog.check_chain(images)]


def test_what_was_only_registered_has_no_faults(catalog: Catalog) -> None:
    assert faults(catalog) == []
    assert catalog.remove(BASE.id, force=True).removed
    assert faults(catalog) == []
    kinds = [entry.kind for entry in catalog.journal.entries()]
    assert kinds.count("release") == 3 and kinds[-1] == "removal" and {"build", "image", "withdrawal", "unrevocation"} < set(kinds)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE images SET digest = 'sha256:1' WHERE name = 'web'", "the record of image a00000000002 was changed"),
        ("UPDATE images SET removed = '2026-01-01T00:00:00Z' WHERE name = 'web'", "the record of image a00000000002 was changed"),
        ("UPDATE image_blobs SET digest = 'sha256:2' WHERE image = 'a00000000001'", "the record of image a00000000001 was changed"),
        ("UPDATE builds SET verify = 'skipped' WHERE id = 'b00000000002'", "the record of build b00000000002 was changed"),
        ("UPDATE steps SET key = 'x' WHERE build = 'b00000000001' AND position = 2", "the record of build b00000000001 was changed"),
        ("UPDATE tests SET outcome = 'failed' WHERE build = 'b00000000001'", "the record of build b00000000001 was changed"),
        ("UPDATE publications SET removed = NULL", "the record of publication ami/eu-west-1/ami-0abc was changed"),
        ("UPDATE channels SET image = 'a00000000001'", "the record of channel web/prod was changed"),
        ("UPDATE channel_events SET who = 'nobody' WHERE serial = 1", "the record of channel event 1 was changed"),
        ("UPDATE revocations SET undone_by = 'x'", "the record of revocation 1 was changed"),
        ("UPDATE releases SET status = 'failed'", "the record of release web/1 was changed"),
        ("UPDATE attestations SET keyid = 'x'", "the record of attestation 1 was changed"),
        ("DELETE FROM attestations", "attestation 1 was registered, but is no longer in the catalog"),
        ("DELETE FROM channels", "channel web/prod was registered, but is no longer in the catalog"),
        (
            "INSERT INTO channels SELECT name, 'old', image, protected, protected_by, who, changed FROM channels",
            "channel web/old was removed",
        ),
        (
            "INSERT INTO revocations SELECT 9, image, reason, who, at, effective, descendants, undone, undone_by FROM revocations",
            "revocation 9 is in the catalog, but the journal has no entry for it",
        ),
    ],
)
def test_a_record_that_was_tampered_with_is_named(catalog: Catalog, statement: str, named: str) -> None:
    behind(catalog, statement)
    (found,) = faults(catalog)
    assert found.startswith(named)


def test_of_some_images_only_their_own_records_are_looked_at(catalog: Catalog) -> None:
    behind(
        catalog,
        "UPDATE images SET digest = 'sha256:1' WHERE name = 'web'",
        "UPDATE builds SET error = 'x'",
        "UPDATE publications SET region = 'x'",
    )
    about_web = faults(catalog, [WEB.id])
    assert [fault.split(" was ")[0] for fault in about_web if "the record of" in fault] == [
        "the record of build b00000000002", "the record of image a00000000002",
    ]  # fmt: skip
    assert any("publication ami/x/ami-0abc is in the catalog, but" in fault for fault in about_web)  # which ones exist is always looked at
    assert [fault for fault in faults(catalog, [BASE.id]) if "the record of" in fault] == [
        "the record of build b00000000001 was changed after it was registered"
    ]


@pytest.mark.parametrize("statement", ["UPDATE journal SET digest = 'x' WHERE serial = 2", "DELETE FROM journal WHERE serial = 2"])
def test_the_database_refuses_to_change_the_journal(catalog: Catalog, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        behind(catalog, statement)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE journal SET at = '2020-01-01T00:00:00Z' WHERE serial = 2", "journal entry 2 (image of image:a00000000001) was changed"),
        ("DELETE FROM journal WHERE serial = 2", "journal entry 2 is missing"),
        ("DELETE FROM journal WHERE serial IN (2, 3)", "journal entries 2 to 3 are missing"),
        ("UPDATE journal SET previous = 'x' WHERE serial = 2", "does not follow the one before it"),
        ("DELETE FROM journal WHERE serial > 4", "the journal has no entry for it"),
    ],
)
def test_a_journal_that_was_tampered_with_is_found(catalog: Catalog, statement: str, named: str) -> None:
    behind(catalog, "DROP TRIGGER journal_no_update", "DROP TRIGGER journal_no_delete", statement)
    assert any(named in found for found in faults(catalog))


def test_records_that_are_older_than_the_journal_are_entered_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        database.upgrade(connection, "0003")
        columns = {
            "id": "b00000000001", "status": "failed", "git_dirty": 0, "template_name": "web", "verify": "none",
            **dict.fromkeys(("variables", "source", "shape", "machine", "host", "tools", "ci", "timings", "inputs"), "{}"),
            **dict.fromkeys(("started", "finished", "template_version", "template_path", "template_text", "template_digest"), ""),
            **dict.fromkeys(("git_commit", "who", "error", "fingerprint"), ""),
        }  # fmt: skip
        names = ", ".join(columns)
        connection.execute(text(f"INSERT INTO builds ({names}) VALUES (:{names.replace(', ', ', :')})"), columns)
    engine.dispose()
    catalog = Catalog(path)
    assert [(entry.kind, entry.subject) for entry in catalog.journal.entries()] == [("adopted", "build:b00000000001")]
    assert faults(catalog) == []
    behind(catalog, "UPDATE builds SET status = 'built'")
    assert faults(catalog) == ["the record of build b00000000001 was changed after it was registered"]


def test_records_that_came_from_an_archive_can_be_entered(catalog: Catalog) -> None:
    behind(catalog, "INSERT INTO revocations SELECT 9, image, reason, who, at, effective, descendants, undone, undone_by FROM revocations")
    assert enter_all(catalog, "imported") == 1
    assert faults(catalog) == []


def test_an_entry_can_be_checked_by_anybody_with_rfc_8785(catalog: Catalog) -> None:
    catalog.channels.set("web", "prod-ü\t", WEB.id, who="me", at=AT)
    previous = "0" * 64
    for entry in catalog.journal.entries():
        fields = asdict(entry)
        assert fields.pop("hash") == hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
        assert entry.previous == previous
        previous = entry.hash


def test_canonical_json_is_the_same_for_the_same() -> None:
    assert canonical({"b": 1.0, "a": (1, {"z": None}), "big": 1 << 60}) == b'{"a":[1,{"z":null}],"b":1,"big":"1152921504606846976"}'
    assert canonical({"odd": "\udcff"}) == b'{"odd":"\\\\udcff"}'
