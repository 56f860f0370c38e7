"""What a run has made in AWS and is on no record yet: entered in the ledger before it is made, given back when the run fails.

A thing belongs to the run whose id its tag `bake:build` says. So what another run has taken over since is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from baker.aws import images
from baker.aws.errors import translated
from baker.aws.session import Access, Aws
from baker.core.errors import BakeError
from baker.core.ledger import BuildLedger, Entry

BUILD_TAG = "bake:build"
KINDS = ("ami:image", "ami:snapshot", "ami:instance")
LOOKS, LOOK_AGAIN_SECONDS = 3, 2.0  # before there is nothing to give back: what was just made may become visible late
NOT_GONE = ["pending", "running", "stopping", "stopped"]


class Things:
    """What one run holds. Those that a killed process of the same run left are among them."""

    def __init__(self, aws: Aws, ledger: BuildLedger) -> None:
        self._aws = aws
        self._ledger = ledger
        self.run = ledger.build_id

    def make(self, kind: str, region: str, name: str, action: Callable[[], str]) -> str:
        """Do what makes a thing and returns its id. Until the id is known, the ledger names it by its tag."""
        details = {"region": region, "name": name, "build": self.run, "access": access_details(self._aws.access)}
        entry = self._ledger.enter(kind, **details)
        made = action()
        self._ledger.enter(kind, **details, id=made)
        self._ledger.strike(entry)
        return made

    def let_go(self, region: str) -> None:
        """Hold an AMI and its snapshots in a region no more: they are on record. An instance never is: one that is still held could not
        be terminated."""
        for entry in self._of(region):
            if entry.kind != "ami:instance":
                self._ledger.strike(entry)

    def give_back(self, region: str, because: BaseException | None = None, *, kinds: tuple[str, ...] = KINDS) -> None:
        """Take away what there is in a region, newest first. What cannot be taken away stays in the ledger, and `because` says
        so; without a `because` that is raised."""
        for entry in self._of(region):
            if entry.kind not in kinds:
                continue
            try:
                reclaim(entry.kind, entry.details, self._aws)
            except BakeError as error:
                if because is None:
                    raise
                because.add_note(
                    f"{entry.details.get('id') or entry.details['name']} could not be given back: {error}; bake sweep tries again"
                )
            else:
                self._ledger.strike(entry)

    def _of(self, region: str) -> Iterator[Entry]:
        return (entry for entry in self._ledger.entries if entry.kind in KINDS and entry.details.get("region") == region)


def access_details(access: Access) -> dict[str, str]:
    """How to get there again, without secrets and without what is to be found anew."""
    return {name: value for name, value in asdict(access).items() if value}


def reclaim(kind: str, details: Mapping[str, Any], aws: Aws | None = None) -> bool:
    """Give back an AMI with its snapshots, a snapshot or an instance of a run; False for another kind. Already gone counts as given back,
    and so does what belongs to another run by now."""
    if kind not in KINDS:
        return False
    aws = aws or Aws(Access(**details.get("access", {})))
    region, build = str(details["region"]), str(details.get("build", ""))
    for found in _found(aws, kind, region, str(details.get("id", "")), build):
        TAKE_AWAY[kind](aws, region, found)
    if kind == "ami:image":  # also those of one that failed, or that only its snapshots are left of
        images.delete_snapshots(aws, region, [snapshot["SnapshotId"] for snapshot in _look(aws, "ami:snapshot", region, "", build)])
    return True


def claim(aws: Aws, region: str, run: str, *ids: str) -> None:
    """Make things this run's own."""
    with translated(f"tagging {', '.join(ids)} in {region}"):
        aws.client("ec2", region).create_tags(Resources=list(ids), Tags=[{"Key": BUILD_TAG, "Value": run}])


def _found(aws: Aws, kind: str, region: str, id: str, build: str) -> list[dict[str, Any]]:  # noqa: A002 - the ledger's word
    """The things of a run, as AWS describes them: the one with this id, or those with the run's tag. Where there are none yet, they are
    looked for again."""
    for number in range(LOOKS):
        if number:
            aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        if found := list(_look(aws, kind, region, id, build)):
            return found
    return []


def _look(aws: Aws, kind: str, region: str, id: str, build: str) -> Iterator[dict[str, Any]]:  # noqa: A002 - the ledger's word
    what: dict[str, Any] = {"Filters": [{"Name": f"tag:{BUILD_TAG}", "Values": [build]}]}
    if id:
        what["Filters"].append({"Name": ID_FILTERS[kind], "Values": [id]})
    elif kind == "ami:instance":  # one that was terminated before is not the one that is meant
        what["Filters"].append({"Name": "instance-state-name", "Values": NOT_GONE})
    client = aws.client("ec2", region)
    with translated(f"looking for {id or f'what {build} left'} in {region}"):
        match kind:
            case "ami:image":
                yield from client.describe_images(Owners=["self"], **what)["Images"]
            case "ami:snapshot":
                yield from client.describe_snapshots(OwnerIds=["self"], **what)["Snapshots"]
            case _:
                for reservation in client.describe_instances(**what)["Reservations"]:
                    yield from reservation["Instances"]


ID_FILTERS = {"ami:image": "image-id", "ami:snapshot": "snapshot-id", "ami:instance": "instance-id"}


def _delete(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    images.delete_snapshots(aws, region, [found["SnapshotId"]], patience=0.0)  # its AMI went before it, or stays


def _terminate(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    with images.gone_is_fine(), translated(f"terminating {found['InstanceId']} in {region}"):
        aws.client("ec2", region).terminate_instances(InstanceIds=[found["InstanceId"]])


TAKE_AWAY = {"ami:image": images.take_away, "ami:snapshot": _delete, "ami:instance": _terminate}
