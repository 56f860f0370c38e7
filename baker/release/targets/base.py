"""The seam to where images run: a release target, such as one auto-scaling group.

A target changes nothing in `look` and `check`. `start`, `wait` and `restore` may be asked again after the process was killed anywhere in
between, and then go on from what the journal has and what they find: whatever they create is noted before, or can be found again by
the delivery's token.
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
    """How a target is to bring an image in. None and empty: as the target does by itself. Percentages of the instances wanted, seconds.

    The words are those of EC2 Auto Scaling's instance refresh.
    """

    min_healthy: int | None = None
    max_healthy: int | None = None
    warm_up: float | None = None
    checkpoints: tuple[int, ...] = ()
    checkpoint_delay: float | None = None
    bake_time: float | None = None
    alarms: tuple[str, ...] = ()  # names of CloudWatch alarms that fail it
    skip_matching: bool = False
    auto_rollback: bool = True
    set_default: bool = False  # make it the launch template's default version
    timeout: float | None = None  # of the whole release

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Strategy:
        known = {f.name for f in fields(cls)}
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return cls(**arguments)

    def given(self) -> frozenset[str]:
        """The names of what is not left to the target."""
        plain = Strategy()
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name))


@dataclass(frozen=True)
class Delivery:
    """One image on its way to a target."""

    title: str  # of the release: "web v41"
    image: str  # "web@1.4.0"
    reference: str  # "ami-0abc..."
    token: str  # this release's own: 32 hex digits
    strategy: Strategy
    before: Mapping[str, Any]  # what `look` said before anything was changed


class ReleaseProgress:
    """What is known of a release on its way. What is noted is on disk when `note` returns."""

    def __init__(self, report: Reporter, details: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], None]) -> None:
        self.report = report
        self.details = dict(details)
        self._keep = keep

    def note(self, **details: Any) -> None:
        self._keep(details)
        self.details.update(details)


class ReleaseError(BuildError):
    """The target did not take the image. `restored`: it is back as it was before, by itself."""

    default_code = "release.failed"

    def __init__(self, message: str, *, hint: str = "", restored: bool = False, code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.restored = restored


class ReleaseTarget(Protocol):
    """One place that images are released to: "asg/web-prod"."""

    takes: str  # the kind of publication it is given: "ami"
    heeds: frozenset[str]  # which fields of Strategy mean something to it

    @property
    def region(self) -> str:
        """Where it is; "" where that says nothing."""

    @property
    def account(self) -> str:
        """Whose it is; "" where that says nothing."""

    def look(self) -> Mapping[str, Any]:
        """What is there now, as JSON, enough for `restore`. NotFoundError, UsageError when it is nothing to release to, BusyError."""

    def check(self, delivery: Delivery) -> None:
        """Raise what can be known to go wrong before anything is changed."""

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        """Bring the image in, as far as it takes no waiting for machines."""

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        """Wait until the image is what runs there. ReleaseError when that fails."""

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        """Bring back what was there before, and wait for it; False when nothing had been changed."""

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        """In words, how far a release is whose process ended: "instance refresh 08b9... is InProgress, 40 %"."""


class Factory(Protocol):
    """Makes a target of its kind by its name. Nothing is asked of anybody before `look`."""

    def __call__(self, name: str, access: Access, clock: Clock) -> ReleaseTarget: ...
