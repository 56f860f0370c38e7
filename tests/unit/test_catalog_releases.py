"""What the catalog knows of an image after its build: publications, channels, revocations, releases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.catalog.catalog import Catalog
from baker.catalog.records import Publication, Release, Revocation
from baker.catalog.reference import is_channel
from baker.catalog.revocations import RevokedError
from baker.core.errors import BusyError, NotFoundError, UsageError
from tests.support.fake_app import a_build, an_image

T1, T2, T3 = "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", "2126-11-24T10:00:00Z"
BASE, OLD, NEW = an_image("debian-13", "13.1.0", 1), an_image("web", "1.3.0", 2, parent="a00000000001"), an_image("web", "1.4.0", 3)
ME, YOU = "me@host", "you@host"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """debian-13 13.1.0, web 1.3.0 on it, web 1.4.0 on nothing."""
    catalog = Catalog(tmp_path / "catalog.sqlite")
    for image in (BASE, OLD, NEW):
        catalog.register(a_build(image), image)
    yield catalog
    catalog.close()


def ami(image: str, number: int, region: str = "eu-west-1", **changes: object) -> Publication:
    values: dict[str, object] = {"image": image, "kind": "ami", "reference": f"ami-{number:017x}", "region": region, "account": "1" * 12}
    return Publication(**(values | {"snapshots": (f"snap-{number:017x}",), "details": {"boot": "uefi"}, "created": T1} | changes))  # type: ignore[arg-type]


def test_publications(catalog: Catalog) -> None:
    here, there = ami(NEW.id, 1), ami(NEW.id, 2, "us-east-1")
    for publication in (here, there, here):
        catalog.publish(publication)
    assert catalog.publications(NEW.id) == [here, there]
    assert catalog.publications(NEW.id, kind="ami", region="us-east-1") == [there]
    assert catalog.publications(NEW.id, kind="oci") == catalog.publications(OLD.id) == []
    with pytest.raises(UsageError, match=NEW.id) as refused:
        catalog.publish(ami(OLD.id, 1))
    assert refused.value.code == "publication.other-image"
    gone = catalog.published.remove(here, at=T2)
    assert (gone.removed, catalog.publications(NEW.id)) == (T2, [there])
    assert catalog.published.of(NEW.id, all=True) == [gone, there]
    assert catalog.published.find(here.reference) == [gone]
    with pytest.raises(NotFoundError, match=ami(NEW.id, 9).reference) as missing:
        catalog.published.remove(ami(NEW.id, 9), at=T2)
    assert missing.value.code == "publication.not-found"


def test_a_channel_and_its_history(catalog: Catalog) -> None:
    channels = catalog.channels
    channels.set("web", "prod", OLD.id, who=ME, at=T1, why="first")
    channels.set("web", "prod", NEW.id, who=YOU, at=T2, why="nginx CVE")
    assert channels.set("web", "prod", NEW.id, who=ME, at=T3).who == YOU, "nothing changed"
    assert catalog.resolve("web@prod") == NEW
    assert [(e.action, e.before, e.after, e.who, e.at, e.why) for e in channels.events("web", "prod")] == [
        ("set", OLD.id, NEW.id, YOU, T2, "nginx CVE"),
        ("set", None, OLD.id, ME, T1, "first"),
    ]
    assert [channel.channel for channel in channels.of(NEW.id)] == ["prod"]
    gone = channels.unset("web", "prod", who=ME, at=T3)
    assert gone.image == NEW.id
    assert channels.all() == []
    assert channels.events("web", "prod")[0].action == "unset"
    with pytest.raises(NotFoundError, match="'prod'") as missing:
        catalog.resolve("web@prod")
    assert missing.value.code == "image.version-not-found"
    with pytest.raises(NotFoundError, match="'prod'") as missing:
        channels.unset("web", "prod", who=ME, at=T3)
    assert missing.value.code == "channel.not-found"


def test_a_protected_channel(catalog: Catalog) -> None:
    channels = catalog.channels
    channels.set("web", "prod", OLD.id, who=ME, at=T1)
    assert channels.protect("web", "prod", True, who=YOU, at=T2).protected_by == YOU
    channels.set("web", "prod", OLD.id, who=ME, at=T2)
    for change in (lambda: channels.set("web", "prod", NEW.id, who=ME, at=T2), lambda: channels.unset("web", "prod", who=ME, at=T2)):
        with pytest.raises(BusyError, match=r"you@host\n.*--force") as busy:
            change()
        assert busy.value.code == "channel.protected"
    assert channels.set("web", "prod", NEW.id, who=ME, at=T3, force=True).protected
    assert not channels.protect("web", "prod", False, who=ME, at=T3).protected
    assert [event.action for event in channels.events("web", "prod")] == ["unprotect", "set", "protect", "set"]


def test_a_channel_keeps_its_image(catalog: Catalog) -> None:
    catalog.channels.set("web", "prod", NEW.id, who=ME, at=T1)
    for attempt in (catalog.remove, catalog.check_removable):
        with pytest.raises(BusyError, match=r"web@1\.4\.0 .* web@prod\n.*--unset") as busy:
            attempt(NEW.id, force=True)
        assert busy.value.code == "image.in-channel"
    catalog.channels.unset("web", "prod", who=ME, at=T1)
    catalog.remove(NEW.id)


@pytest.mark.parametrize(
    ("name", "fits"),
    [("prod", True), ("eu.prod-2", True), ("latest", False), ("1.4", False), ("x", False), ("Prod", False), ("", False)],
)
def test_names_of_channels(name: str, fits: bool) -> None:
    assert is_channel(name) is fits


def revoked(image: str, effective: str = T2, **changes: object) -> Revocation:
    return Revocation(image, "CVE-2026-1", ME, T1, effective, **changes)  # type: ignore[arg-type]


def test_a_revoked_image_is_passed_over_and_refused(catalog: Catalog) -> None:
    catalog.revocations.add(revoked(NEW.id))
    assert catalog.resolve("web") == catalog.resolve("web@^1.2") == catalog.resolve("web@latest") == OLD
    assert catalog.resolve("web@1.4.0") == NEW
    with pytest.raises(RevokedError, match=r"web@1\.4\.0 .* as a source: CVE-2026-1\n.* me@host, .* 2026") as refused:
        catalog.check_usable(NEW, "as a source")
    assert refused.value.code == "image.revoked"
    catalog.check_usable(OLD, "as a source")
    catalog.revocations.add(revoked(OLD.id))
    assert catalog.resolve("web") == NEW, "where all are revoked the newest is meant"
    assert catalog.revocations.undo(NEW.id, who=ME, at=T2).reason == "CVE-2026-1"
    catalog.check_usable(NEW, "as a source")
    with pytest.raises(NotFoundError, match=NEW.id) as missing:
        catalog.revocations.undo(NEW.id, who=ME, at=T2)
    assert missing.value.code == "revocation.not-found"


def test_a_revocation_that_is_still_to_come(catalog: Catalog) -> None:
    catalog.revocations.add(revoked(NEW.id, T3))
    catalog.check_usable(NEW, "as a source")
    assert catalog.resolve("web") == NEW
    assert catalog.revocations.all()[NEW.id].effective == T3
    catalog.revocations.add(revoked(NEW.id, T2))
    with pytest.raises(RevokedError):
        catalog.check_usable(NEW, "as a source")


def test_descendants_inherit_a_revocation_also_later_ones(catalog: Catalog) -> None:
    catalog.revocations.add(revoked(BASE.id))
    assert set(catalog.revocations.all()) == {BASE.id}
    catalog.revocations.add(revoked(BASE.id, descendants=True))
    later = an_image("shop", "0.1.0", 9, parent=OLD.id)
    catalog.register(a_build(later), later)
    assert set(catalog.revocations.all()) == {BASE.id, OLD.id, later.id}
    found = catalog.revocations.of(later.id)
    assert found is not None
    assert (found.image, found.inherited_from, found.reason) == (later.id, BASE.id, "CVE-2026-1")
    with pytest.raises(UsageError, match=f"{later.id} .* {BASE.id}\n.*bake revoke {BASE.id} --undo") as refused:
        catalog.revocations.undo(later.id, who=ME, at=T2)
    assert refused.value.code == "revocation.inherited"
    catalog.revocations.undo(BASE.id, who=ME, at=T2)
    assert catalog.revocations.all() == {}


def a_release(**changes: object) -> Release:
    values: dict[str, object] = {
        "name": "web",
        "number": 0,
        "image": NEW.id,
        "channel": "prod",
        "target": "asg/web-prod",
        "status": "running",
    }
    return Release(**(values | {"who": ME, "started": T1, "region": "eu-west-1", "details": {"ami": "ami-1"}} | changes))  # type: ignore[arg-type]


def test_releases_are_numbered_and_run_until_their_end_is_known(catalog: Catalog) -> None:
    releases = catalog.releases
    first = releases.begin(a_release())
    assert (first.number, first.title, releases.running("web")) == (1, "v1", [first])
    with pytest.raises(BusyError, match=r"release v1 of web to asg/web-prod .* me@host\n.*--resume") as busy:
        releases.begin(a_release())
    assert busy.value.code == "release.running"
    elsewhere = releases.begin(a_release(region="us-east-1"))
    assert (elsewhere.number, releases.begin(a_release(name="shop", target="asg/shop")).number) == (2, 1)
    assert releases.note(first, {"version": 8}).details == {"ami": "ami-1", "version": 8}
    ended = releases.finish(first, "failed", at=T2, error="the refresh failed")
    assert (ended.status, ended.finished, ended.error, ended.details) == (
        "failed",
        T2,
        "the refresh failed",
        {"ami": "ami-1", "version": 8},
    )
    assert releases.begin(a_release(rollback_of=1)).number == 3
    assert [release.number for release in releases.all("web")] == [3, 2, 1]
    assert releases.get("web", 1) == ended
    with pytest.raises(NotFoundError, match=r"web .* v9") as missing:
        releases.get("web", 9)
    assert missing.value.code == "release.not-found"
