"""A release target for tests: places with one image each, which accept it, refuse it, or fail in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baker.aws.session import Access
from baker.core.clock import Clock
from baker.core.errors import BuildError
from baker.release.targets.base import Delivery, ReleaseError, ReleaseProgress


@dataclass
class Place:
    """The state of a target, and its future behaviour."""

    image: str = ""
    region: str = "eu-west-1"  # the default region of the environment
    account: str = "123456789012"
    start_error: BaseException | None = None
    wait_error: BaseException | None = None
    restore_error: BuildError | None = None
    asked: list[str] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)


class Places:
    """Places by name; an unknown name gives an empty place."""

    def __init__(self) -> None:
        self.by_name: dict[str, Place] = {}

    def __getitem__(self, name: str) -> Place:
        return self.by_name.setdefault(name, Place())


WORLD = Places()  # of targets that are loaded as a plugin, in tests of the CLI


class FakeTarget:
    """One place. The region is that of its access, or the place's."""

    takes = "ami"
    heeds = frozenset({"auto_rollback", "min_healthy", "timeout"})

    def __init__(self, name: str, access: Access, clock: Clock, world: Places = WORLD) -> None:
        self.place, self.access = world[name], access
        self.place.accesses.append(access)

    @property
    def region(self) -> str:
        return self.access.region or self.place.region

    @property
    def account(self) -> str:
        return self.place.account

    def look(self) -> Mapping[str, Any]:
        return {"image": self.place.image}

    def check(self, delivery: Delivery) -> None:
        if delivery.reference.startswith("ami-bad"):
            raise BuildError(f"{delivery.reference} is pending")

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        self.place.asked.append(f"start {delivery.reference}")
        if self.place.start_error:
            raise self.place.start_error
        self.place.image = delivery.reference
        journal.note(started=True)

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        self.place.asked.append("wait")
        with journal.report.stage("refresh", "the place"):
            journal.report.progress("instances", 1, 2, "items")
            if self.place.wait_error:
                raise self.place.wait_error

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        self.place.asked.append(f"restore {delivery.before['image'] or 'nothing'}")
        if self.place.restore_error:
            raise self.place.restore_error
        changed: bool = self.place.image != delivery.before["image"]
        self.place.image = delivery.before["image"]
        return changed

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        return f"the place has {self.place.image or 'nothing'}"


def broken(text: str = "2 instances are unhealthy", *, restored: bool = False) -> ReleaseError:
    return ReleaseError(text, restored=restored)


def install(directory: Path) -> Path:
    """A distribution in `directory` whose entry point is the target kind `fake`."""
    info = directory / "fake_target-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-target\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[baker.release_targets]\nfake = tests.support.fake_target:FakeTarget\n")
    return directory
