"""The interface of release targets: the places where images run, such as one auto-scaling group.

`look` and `check` change nothing. `start`, `wait` and `restore` are idempotent: they may be called again after the process was killed at
any point, and then continue from the notes in the journal and the state of the target. Whatever they create is noted before, or can
be found again by the delivery's token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from baker.aws.session import Access
from baker.core.clock import Clock
from baker.core.errors import BuildError
from baker.core.events import Reporter


@dataclass(frozen=True)
class Strategy:
    """How a target rolls out an image. None and empty values leave the choice to the target.

    Health and checkpoints are percentages of the desired instances, times are in seconds. The terms are those of EC2 Auto Scaling's
    instance refresh.
    """

    min_healthy: int | None = None
    max_healthy: int | None = None
    warm_up: float | None = None
    checkpoints: tuple[int, ...] = ()
    checkpoint_delay: float | None = None
    bake_time: float | None = None
    alarms: tuple[str, ...] = ()  # names of the CloudWatch alarms that fail the release
    skip_matching: bool = False
    auto_rollback: bool = True
    set_default: bool = False  # make it the launch template's default version
    timeout: float | None = None  # for the whole release

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Strategy:
        known = {f.name for f in fields(cls)}
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return cls(**arguments)

    def given(self) -> frozenset[str]:
        """The names of the fields that differ from their defaults."""
        default = Strategy()
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name))


@dataclass(frozen=True)
class Delivery:
    """One image to bring to a target."""

    title: str  # of the release: "web v41"
    image: str  # "web@1.4.0"
    reference: str  # "ami-0abc..."
    token: str  # unique for each release: 32 hex digits
    strategy: Strategy
    before: Mapping[str, Any]  # what `look` returned before anything was changed


class ReleaseProgress:
    """The notes of a running release, in `details`. A note is on disk when `note` returns."""

    def __init__(self, report: Reporter, details: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], None]) -> None:
        self.report = report
        self.details = dict(details)
        self._keep = keep

    def note(self, **details: Any) -> None:
        self._keep(details)
        self.details.update(details)


class ReleaseError(BuildError):
    """The target could not be brought to the image. `restored`: the target is already back in its former state."""

    default_code = "release.failed"

    def __init__(self, message: str, *, hint: str = "", restored: bool = False, code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.restored = restored


class ReleaseTarget(Protocol):
    """One place that images are released to, such as "asg/web-prod"."""

    takes: str  # the kind of publication that it needs: "ami"
    heeds: frozenset[str]  # the fields of Strategy that it supports

    @property
    def region(self) -> str:
        """The target's region, or "" for a target without regions."""

    @property
    def account(self) -> str:
        """The account that owns the target, or "" for a target without accounts."""

    def look(self) -> Mapping[str, Any]:
        """The target's present state as JSON, sufficient for `restore`.

        Raises NotFoundError for a missing target, UsageError for one that cannot be released to, BusyError while it is changing.
        """

    def check(self, delivery: Delivery) -> None:
        """Raise an error for every problem that can be found before anything is changed."""

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        """Begin to roll out the image, without waiting for machines."""

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        """Wait until the target runs the image. ReleaseError when that fails."""

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        """Restore the former state and wait for it. Returns False when nothing had been changed."""

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        """Describe the state of a release whose process ended: "instance refresh 08b9... is InProgress, 40 %"."""


class Factory(Protocol):
    """Make a target of one kind by its name. Sends no request before `look`."""

    def __call__(self, name: str, access: Access, clock: Clock) -> ReleaseTarget: ...
