"""Retention of published AMIs: decide which AMIs of an image name to deprecate, disable or deregister, and do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord, Publication, Release
from baker.core.clock import Clock
from baker.core.errors import BakeError
from baker.release.in_use import Region, snapshots_of

Action = Literal["keep", "candidate", "deprecate", "disable", "deregister", "forget"]
DAY = 86400.0
SOON = timedelta(minutes=2)  # EC2 accepts no deprecation date in the past, and rounds to minutes


@dataclass(frozen=True)
class Rules:
    """Which AMIs to select, and what to do with them. Times are in seconds.

    An AMI is selected when it is unused, not among the newest, older than `older_than`, and was not launched within `unlaunched`. So is
    an unused AMI of an image that was removed from the catalog.
    """

    keep: int = 5  # the number of newest AMIs to keep in each region
    keep_releases: int = 3  # the number of last successful releases whose images to keep, for each target
    older_than: float = 90 * DAY
    unlaunched: float = 30 * DAY
    deprecate_after: float | None = None  # the age at which to deprecate unused AMIs
    disable: bool = False
    deregister: bool = False
    delete_snapshots: bool = False
    shared: bool = False  # also change AMIs that are shared with others

    @property
    def action(self) -> Action:
        """What to do with the selected AMIs."""
        return "deregister" if self.deregister else "disable" if self.disable else "candidate"


@dataclass(frozen=True)
class Facts:
    """One published AMI as the catalog and EC2 know it."""

    publication: Publication
    image: ImageRecord
    seen: Mapping[str, Any] | None  # EC2's description of it; None when EC2 has no such AMI
    use: str = ""  # what uses it, or ""
    launched: str = ""  # when it was last launched (ISO 8601), or ""
    shared_with: int = 0  # the number of accounts, organisations and units that may launch it

    @property
    def state(self) -> str:
        return str(self.seen["State"]) if self.seen else "gone"


@dataclass(frozen=True)
class RetentionDecision:
    """What to do with one AMI, and why. `snapshots` are deleted with it; `error` is the reason why the action failed."""

    publication: Publication
    image: ImageRecord
    action: Action
    why: str
    age: float  # seconds
    launched: str = ""
    snapshots: tuple[str, ...] = ()
    error: str = ""


def judge(facts: Sequence[Facts], rules: Rules, now: datetime) -> list[RetentionDecision]:
    """The decision for each AMI of one region, the newest AMI first. A pure function of its arguments."""
    newest_first = sorted(facts, key=lambda one: (one.publication.created, one.publication.reference), reverse=True)
    present = [one for one in newest_first if one.seen and not one.image.removed]
    young = {one.publication.reference for one in present[: rules.keep]}
    return [_judge(one, rules, now, one.publication.reference in young) for one in newest_first]


def _judge(one: Facts, rules: Rules, now: datetime, newest: bool) -> RetentionDecision:
    age = _since(one.publication.created, now)
    action, why = _decide(one, rules, age, _since(one.launched, now) if one.launched else None, newest)
    return RetentionDecision(one.publication, one.image, action, why, age, one.launched)


def _decide(one: Facts, rules: Rules, age: float, launched: float | None, newest: bool) -> tuple[Action, str]:
    if one.use:
        return "keep", one.use
    if one.seen is None:
        return "forget", "EC2 no longer has it"
    action, why = _wanted(one, rules, age, launched, newest)
    untouchable = _untouchable(one, rules, one.seen) if action != "keep" else ""
    return ("keep", untouchable) if untouchable else (action, why)


def _untouchable(one: Facts, rules: Rules, seen: Mapping[str, Any]) -> str:
    """Why an AMI must not be changed at all, not even deprecated; "" when it may be."""
    if one.shared_with and not rules.shared:
        return f"shared with {one.shared_with} others"
    if str(seen.get("DeregistrationProtection", "disabled")).startswith("enabled"):
        return "protected from deregistration"
    return ""


def _wanted(one: Facts, rules: Rules, age: float, launched: float | None, newest: bool) -> tuple[Action, str]:
    """The action of the rules for an unused AMI that EC2 has, and the reason."""
    seen: Mapping[str, Any] = one.seen or {}
    if one.image.removed:
        return _selected(one, rules, "the image was removed from the catalog")
    if newest:
        return "keep", f"one of the newest {rules.keep}"
    if age >= rules.older_than and (launched is None or launched >= rules.unlaunched):
        idle = "never launched" if launched is None else f"last launched {_days(launched)} ago"
        return _selected(one, rules, f"unused, {_days(age)} old, {idle}")
    if rules.deprecate_after is not None and age >= rules.deprecate_after and not seen.get("DeprecationTime"):
        return "deprecate", f"unused, {_days(age)} old"
    if age < rules.older_than:
        return "keep", f"only {_days(age)} old"
    return "keep", f"launched {_days(launched or 0)} ago"


def _selected(one: Facts, rules: Rules, why: str) -> tuple[Action, str]:
    """The action for an AMI that the rules select."""
    seen: Mapping[str, Any] = one.seen or {}
    if rules.action == "disable" and one.state == "disabled":
        return "keep", "already disabled"
    if rules.action == "candidate" and rules.deprecate_after is not None and not seen.get("DeprecationTime"):
        return "deprecate", why
    return rules.action, why


@dataclass(frozen=True)
class Lifecycle:
    """The AMIs of one catalog's images in one account."""

    catalog: Catalog
    aws: Aws
    clock: Clock = field(default_factory=Clock)
    region: Callable[[Aws, str], Region] = Region

    def plan(self, name: str, rules: Rules, regions: Sequence[str] = ()) -> list[RetentionDecision]:
        """The decision for every AMI of the images called `name`, in all regions or only in `regions`. Changes nothing."""
        published = self._published(name, regions)
        found: list[RetentionDecision] = []
        for where in sorted({publication.region for publication, _ in published}):
            here = [(publication, image) for publication, image in published if publication.region == where]
            found += self._plan_region(self.region(self.aws, where), here, rules, self._kept(name, rules))
        return found

    def apply(self, decisions: Sequence[RetentionDecision], rules: Rules | None = None) -> list[RetentionDecision]:
        """Execute the decisions, and return them, with an `error` for each that failed.

        The record of a removed AMI is marked at once. An AMI that a channel or a release has come to use since the plan is kept.
        """
        return [self._apply(decision, rules or Rules()) for decision in decisions]

    def _published(self, name: str, regions: Sequence[str]) -> list[tuple[Publication, ImageRecord]]:
        return [
            (publication, image)
            for image in self.catalog.images(name, all=True)
            for publication in self.catalog.publications(image.id, kind="ami")
            if not regions or publication.region in regions
        ]

    def _plan_region(
        self, region: Region, here: Sequence[tuple[Publication, ImageRecord]], rules: Rules, kept: Mapping[str, str]
    ) -> list[RetentionDecision]:
        ids = [publication.reference for publication, _ in here]
        seen, uses = region.images(ids), region.uses(ids)
        facts = []
        for publication, image in here:
            there = seen.get(publication.reference)
            one = Facts(publication, image, there, kept.get(image.id) or uses.get(publication.reference, ""))
            owner = there.get("OwnerId") if there is not None else publication.account  # an AMI of another account may be invisible here
            if not one.use and owner not in ("", self.aws.account):
                one = replace(one, use=f"account {owner} owns it")
            if there is not None and not one.use:
                ami = publication.reference
                one = replace(one, launched=region.last_launched(ami), shared_with=region.shared_with(ami))
            facts.append(one)
        decisions = judge(facts, rules, self._now)
        return self._with_snapshots(region, decisions, seen) if rules.delete_snapshots else decisions

    def _with_snapshots(
        self, region: Region, decisions: list[RetentionDecision], seen: Mapping[str, Mapping[str, Any]]
    ) -> list[RetentionDecision]:
        """Add to the decisions the snapshots that no AMI uses once all are executed.

        A snapshot that several AMIs share is deleted with the oldest of them, which is the last in the list. For an AMI that EC2 no
        longer has, the snapshots are those on record: whoever deregistered it may have left them.
        """
        made_of = {
            one.publication.reference: snapshots_of(seen[one.publication.reference])
            if one.action == "deregister"
            else one.publication.snapshots
            for one in decisions
            if one.action in ("deregister", "forget")
        }
        sharers = region.sharers([snapshot for snapshots in made_of.values() for snapshot in snapshots])
        found: list[RetentionDecision] = []
        assigned: set[str] = set()
        for one in reversed(decisions):
            own = [s for s in made_of.get(one.publication.reference, ()) if s not in assigned and sharers.get(s, set()) <= set(made_of)]
            assigned |= set(own)
            found.append(replace(one, snapshots=tuple(own)))
        return found[::-1]

    def _kept(self, name: str, rules: Rules) -> dict[str, str]:
        """Image ID -> the channel or release that needs it.

        A release that failed after the target's last successful one was not rolled back: part of the target may run its image.
        """
        kept: dict[str, str] = {}
        counted: dict[tuple[str, str, str], set[str]] = {}  # target -> the images of its last successful releases
        for release in self.catalog.releases.all():
            where = counted.setdefault((release.target, release.region, release.account), set())
            if release.status == "running" or (release.status == "succeeded" and len(where) < rules.keep_releases):
                where |= {release.image} if release.status == "succeeded" else set()
                kept.setdefault(release.image, _title(release))
            elif release.status == "failed" and not where:
                kept.setdefault(release.image, _title(release))
        kept |= {channel.image: f"channel {channel.channel}" for channel in self.catalog.channels.all(name)}
        return kept

    def _apply(self, decision: RetentionDecision, rules: Rules) -> RetentionDecision:
        kept = self._kept(decision.image.name, rules).get(decision.image.id) if decision.action != "keep" else None
        if kept:
            return replace(decision, action="keep", why=kept, snapshots=())
        try:
            if decision.action in ("deprecate", "disable", "deregister"):
                self._change(decision)
            for snapshot in decision.snapshots:
                self._delete(snapshot, decision.publication.region)
            if decision.action in ("deregister", "forget"):  # last, because nothing retries the rest once the record is marked
                self.catalog.published.remove(decision.publication, at=self._now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        except BakeError as error:
            return replace(decision, error=error.message)
        return decision

    def _change(self, decision: RetentionDecision) -> None:
        ami, region = decision.publication.reference, decision.publication.region
        client = self.aws.client("ec2", region)
        try:
            with translated(f"cannot {decision.action} {ami} in {region}"):
                if decision.action == "deprecate":
                    client.enable_image_deprecation(ImageId=ami, DeprecateAt=self._now + SOON)
                elif decision.action == "disable":
                    client.disable_image(ImageId=ami)
                else:
                    client.deregister_image(ImageId=ami)
        except AwsError as error:
            if not (error.missing and decision.action == "deregister"):
                raise

    def _delete(self, snapshot: str, region: str) -> None:
        try:
            with translated(f"cannot delete {snapshot} in {region}"):
                self.aws.client("ec2", region).delete_snapshot(SnapshotId=snapshot)
        except AwsError as error:
            if not error.missing:
                raise

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.date(), UTC)


def _title(release: Release) -> str:
    return f"release {release.title} to {release.target}" + {"running": " is running", "failed": " failed"}.get(release.status, "")


def _since(moment: str, now: datetime) -> float:
    """Seconds since an ISO 8601 time; 0 for any other text, so that nothing counts as old by mistake."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return max((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds(), 0.0)


def _days(seconds: float) -> str:
    count = int(seconds // DAY)
    return f"{count} day{'' if count == 1 else 's'}"
