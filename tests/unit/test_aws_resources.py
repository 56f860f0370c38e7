"""Resources in AWS of one run: in the ledger before they are created, found by their tag, deleted or kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from baker.aws.resources import BUILD_TAG, create, keep_image, reclaim, track
from baker.aws.session import Access
from baker.core.clock import Clock
from baker.core.errors import BakeError, HostError
from baker.core.ledger import BuildLedger, Ledger
from tests.support.fakes import FakeClock

REGION, OTHER = "eu-central-1", "eu-west-1"


@dataclass
class FakeEc2:
    """The snapshots of one region: id -> the run in the tag."""

    snapshots: dict[str, str] = field(default_factory=dict)
    hidden: int = 0  # how many more times nothing is visible
    refused: bool = False

    def start(self, name: str, run: str, *, lost: bool = False) -> str:
        self.snapshots[name] = run
        if lost:
            raise HostError("no answer")
        return name

    def describe_snapshots(self, *, OwnerIds: list[str], Filters: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self.hidden -= 1
        wanted = {each["Name"]: each["Values"] for each in Filters}
        found = [
            name
            for name, run in self.snapshots.items()
            if run in wanted[f"tag:{BUILD_TAG}"] and name in wanted.get("snapshot-id", [name]) and self.hidden < 0
        ]
        return {"Snapshots": [{"SnapshotId": name} for name in found]}

    def delete_snapshot(self, *, SnapshotId: str) -> None:  # noqa: N803
        if self.refused:
            raise HostError(f"not allowed to delete {SnapshotId}")
        del self.snapshots[SnapshotId]


@dataclass
class FakeAws:
    """An `Aws` with two regions."""

    regions: dict[str, FakeEc2] = field(default_factory=lambda: {REGION: FakeEc2(), OTHER: FakeEc2()})
    time: FakeClock = field(default_factory=FakeClock)
    access: Access = field(default_factory=lambda: Access(region=REGION))

    @property
    def clock(self) -> Clock:
        return Clock(self.time.now, self.time.date, self.time.sleep)

    def client(self, service: str, region: str) -> FakeEc2:
        return self.regions[region]


@pytest.fixture
def aws() -> FakeAws:
    return FakeAws()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[BuildLedger]:
    with Ledger(tmp_path / "ledger").open("run1") as ledger:
        yield ledger


def snapshot(resources: Any, aws: FakeAws, name: str, region: str = REGION, *, lost: bool = False) -> str:
    def action() -> str:
        return aws.regions[region].start(name, resources.run, lost=lost)

    return create(resources, aws, "ami:snapshot", region=region, name="web", action=action)


def test_an_entry_says_where_and_which(ledger: BuildLedger, aws: FakeAws) -> None:
    resources = track(ledger, aws)  # type: ignore[arg-type]
    assert snapshot(resources, aws, "snap-1") == "snap-1"
    (entry,) = ledger.entries
    access = {"region": REGION, "session_name": aws.access.session_name}
    expected = {"region": REGION, "name": "web", "build": "run1", "access": access, "id": "snap-1"}
    assert (entry.kind, entry.details) == ("ami:snapshot", expected)


def test_one_region_is_released_and_the_other_is_kept(ledger: BuildLedger, aws: FakeAws) -> None:
    resources = track(ledger, aws)  # type: ignore[arg-type]
    snapshot(resources, aws, "snap-1")
    snapshot(resources, aws, "snap-2", OTHER)
    resources.release(region=REGION)
    keep_image(resources, OTHER)
    assert (aws.regions[REGION].snapshots, aws.regions[OTHER].snapshots) == ({}, {"snap-2": "run1"})
    assert ledger.entries == ()


def test_one_whose_answer_was_lost_is_found_by_its_tag_although_it_is_not_visible_at_once(ledger: BuildLedger, aws: FakeAws) -> None:
    resources, ec2 = track(ledger, aws), aws.regions[REGION]  # type: ignore[arg-type]
    with pytest.raises(HostError):
        snapshot(resources, aws, "snap-1", lost=True)
    assert [entry.details.get("id") for entry in ledger.entries] == [None]
    ec2.hidden = 2
    resources.release()
    assert (ec2.snapshots, ledger.entries) == ({}, ())


def test_those_that_a_killed_process_of_the_run_left_are_released(ledger: BuildLedger, aws: FakeAws) -> None:
    snapshot(track(ledger, aws), aws, "snap-1")  # type: ignore[arg-type]
    resources = track(ledger, aws)  # type: ignore[arg-type]
    snapshot(resources, aws, "snap-2")
    resources.release()
    assert (aws.regions[REGION].snapshots, ledger.entries) == ({}, ())


def test_one_that_another_run_has_claimed_is_left_alone(ledger: BuildLedger, aws: FakeAws) -> None:
    resources = track(ledger, aws)  # type: ignore[arg-type]
    snapshot(resources, aws, "snap-1")
    aws.regions[REGION].snapshots["snap-1"] = "run2"
    resources.release()
    assert (aws.regions[REGION].snapshots, ledger.entries) == ({"snap-1": "run2"}, ())


def test_one_that_cannot_be_deleted_stays_in_the_ledger(ledger: BuildLedger, aws: FakeAws) -> None:
    resources, ec2 = track(ledger, aws), aws.regions[REGION]  # type: ignore[arg-type]
    snapshot(resources, aws, "snap-1")
    ec2.refused = True
    error = BakeError("why")
    resources.release_after(error, region=REGION)
    (note,) = error.__notes__
    assert "snap-1" in note and "bake sweep" in note
    (entry,) = ledger.entries
    ec2.refused = False
    assert reclaim(entry.kind, entry.details, aws)  # type: ignore[arg-type]
    assert ec2.snapshots == {}
    ledger.strike(entry)
