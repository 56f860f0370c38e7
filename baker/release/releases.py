"""Releases: a channel's image brought to a target, on record before anything is changed, followed to its end, taken back when it fails.

A release whose process was killed stays `running` on record. Nobody needs to be awake for it: AWS goes on by itself, and `resume`
goes on from what the record and the target say.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from baker.aws.session import Access
from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord, Publication, Release, Status
from baker.catalog.releases import still_running
from baker.core.clock import Clock
from baker.core.errors import BakeError, BusyError, HostError, Interrupted, NotFoundError, UsageError
from baker.core.events import Null, Reporter, Sink
from baker.core.host_facts import who
from baker.core.leases import Leases
from baker.release.revocations import current
from baker.release.targets import registry
from baker.release.targets.base import Delivery, Factory, ReleaseError, ReleaseProgress, ReleaseTarget, Strategy


@dataclass(frozen=True)
class Releaser:
    """Releases of one catalog's images. `targets`: kind -> what makes such targets."""

    catalog: Catalog
    leases: Leases
    sink: Sink = field(default_factory=Null)
    clock: Clock = field(default_factory=Clock)
    targets: Callable[[str], Factory] = registry.get

    # -- what is asked for ----------------------------------------------------------------------------------------------------

    def release(self, name: str, channel: str, to: str, strategy: Strategy, access: Access, *, why: str = "", wait: bool = True) -> Release:
        """Bring the image of `name`@`channel` to the target `to` ("asg/web-prod") as a new release; how it ended.

        ReleaseError when the target did not take it; the record says then whether it was rolled back. Without `wait` it is still running.
        """
        found = self.catalog.channels.get(name, channel)
        if found is None:
            there = ", ".join(one.channel for one in self.catalog.channels.all(name))
            raise NotFoundError(
                f"{name} has no channel {channel!r}",
                hint=f"it has {there}" if there else f"bake channel {name} {channel} --set {name}@VERSION makes it",
            )
        return self._begin(Release(name, 0, found.image, channel, to, "running", who(), "", why=why), strategy, access, wait)

    def rollback(
        self, name: str, number: int | None = None, *, to: str = "", strategy: Strategy | None = None, access: Access | None = None,
        why: str = "", wait: bool = True,
    ) -> Release:  # fmt: skip
        """Bring the image of a former release (None: the last good one before the present) to where it ran, as a new release.
        What of strategy and access is not given is that of the present release."""
        present = self._present(name, number, to, (access.region if access else None) or "")
        back = self.catalog.releases.get(name, number) if number is not None else self._before(present)
        if back.status != "succeeded" and number is not None:
            raise UsageError(f"release {back.title} of {name} never ran: it {back.status}", hint=f"bake releases {name}")
        made = Release(
            name, 0, back.image, "", present.target, "running", who(), "", present.region, present.account, rollback_of=back.number, why=why
        )
        wanted = Strategy.from_json(present.details.get("strategy", {}))
        if strategy:
            wanted = replace(wanted, **{field: getattr(strategy, field) for field in strategy.given()})
        return self._begin(made, wanted, _access(present, access), wait)

    def resume(self, name: str, access: Access | None = None) -> list[Release]:
        """Go on with the releases of a name whose process ended before they did. BusyError where it lives, NotFoundError without any.
        `access`: what of it is given is used instead of what they were begun with; it has to lead to the same account and region.

        The error of the last one that fails is raised when all have ended.
        """
        left = self.catalog.releases.running(name)
        if not left:
            raise NotFoundError(f"no release of {name} is running", hint=f"bake releases {name}")
        ended: list[Release] = []
        problem: BakeError | None = None
        for release in reversed(left):
            try:
                ended.append(self._go_on(release, access))
            except (ReleaseError, BusyError, UsageError) as error:
                problem = error
        if problem is not None:
            raise problem
        return ended

    def abandoned(self, release: Release) -> bool:
        """Whether a release is on record as running, but no process of this host works on it."""
        if release.status != "running":
            return False
        with self.leases.try_exclusive(lease_of(release)) as alone:
            return alone is not None

    # -- how it goes ----------------------------------------------------------------------------------------------------------

    def _begin(self, asked: Release, strategy: Strategy, access: Access, wait: bool) -> Release:
        image = self.catalog.image(asked.image)
        self.catalog.check_usable(image, "for a release")
        target = self._target(asked.target, access, strategy)
        _check_place(asked, target)
        access = replace(access, region=target.region or access.region)  # as found in the environment of now, for whoever goes on
        publication = self._publication(image, target)
        release = replace(asked, region=target.region, account=target.account, started=self._now())
        with ExitStack() as stack:
            if stack.enter_context(self.leases.try_exclusive(lease_of(release))) is None:
                holder = self.leases.holder(lease_of(release))
                raise BusyError(f"{holder} is releasing to {release.target}", hint=f"bake releases {release.name}", code="release.running")
            self._check_none_left(release, access)
            details = {
                "reference": publication.reference,
                "token": uuid.uuid4().hex,
                "strategy": strategy.to_json(),
                "access": asdict(access),
                "before": dict(target.look()),
            }
            target.check(self._delivery(release, image, details))
            release = self.catalog.releases.begin(replace(release, details=details))
            report = Reporter(self.sink, f"{release.name} {release.title}")
            report.info(
                f"release {release.title} of {release.name}: {image.name}@{image.version} ({publication.reference}) to {release.target}"
            )
            return self._carry_out(release, image, target, wait)

    def _go_on(self, release: Release, access: Access | None) -> Release:
        with self.leases.try_exclusive(lease_of(release)) as alone:
            if alone is None:
                raise still_running(release)
            release = self.catalog.releases.get(release.name, release.number)
            if release.status != "running":  # whoever held the lock until now has brought it to its end
                return release
            details = release.details
            target = self._target(release.target, _access(release, access), Strategy.from_json(details["strategy"]))
            _check_place(release, target)
            image = self.catalog.image(release.image)
            journal = self._journal(release)
            journal.report.info(f"release {release.title}: {target.found(self._delivery(release, image, details), journal)}")
            return self._carry_out(release, image, target, wait=True)

    def _carry_out(self, release: Release, image: ImageRecord, target: ReleaseTarget, wait: bool) -> Release:
        """Through to its end. A HostError (no network, credentials that ran out) and an interrupt leave it running, for `resume`."""
        delivery, journal = self._delivery(release, image, release.details), self._journal(release)
        try:
            if journal.details.get("failed"):  # the process ended while it was rolling back
                raise ReleaseError(str(journal.details["failed"]))
            target.start(delivery, journal)
            if not wait:
                return self.catalog.releases.get(release.name, release.number)
            target.wait(delivery, journal)
        except (HostError, Interrupted, KeyboardInterrupt) as error:
            error.add_note(_goes_on(release))
            raise
        except BakeError as error:
            return self._fail(release, target, delivery, journal, error)
        return self._end(release, "succeeded")

    def _fail(self, release: Release, target: ReleaseTarget, delivery: Delivery, journal: ReleaseProgress, error: BakeError) -> Release:
        """Put the target back as it was, where that is wanted and AWS has not done so; then raise, with the end on record."""
        journal.note(failed=error.message)
        restored = getattr(error, "restored", False)
        second = ""
        if not restored and delivery.strategy.auto_rollback:
            try:
                with journal.report.stage("roll back", release.target):
                    restored = target.restore(delivery, journal)
            except (HostError, Interrupted, KeyboardInterrupt) as other:
                other.add_note(_goes_on(release))
                raise
            except BakeError as other:
                second = f"; rolling back failed too: {other.message}"
        self._end(release, "rolled back" if restored else "failed", error=error.message + second)
        state = "rolled back: it is as it was before" if restored else "failed, and was not rolled back"
        raise ReleaseError(
            f"release {release.title} of {release.name} to {release.target} {state}\n    {error.message}{second}", hint=error.hint
        ) from error

    def _end(self, release: Release, status: Status, error: str = "") -> Release:
        return self.catalog.releases.finish(release, status, at=self._now(), error=error)

    # -- what it needs --------------------------------------------------------------------------------------------------------

    def _target(self, text: str, access: Access, strategy: Strategy) -> ReleaseTarget:
        kind, name = registry.split(text)
        target = self.targets(kind)(name, access, self.clock)
        foreign = sorted(strategy.given() - target.heeds)
        if foreign:
            flags = {"auto_rollback": "--no-auto-rollback", "alarms": "--alarm"}
            shown = ", ".join(flags.get(name, f"--{name.replace('_', '-')}") for name in foreign)
            raise UsageError(f"{shown} means nothing to {text}", hint="leave it out")
        return target

    def _publication(self, image: ImageRecord, target: ReleaseTarget) -> Publication:
        """Where the image is published for this target, in the target's own account rather than in another's."""
        all_ = self.catalog.publications(image.id, kind=target.takes)
        here = [one for one in all_ if one.region == target.region]
        if not here:
            name, there = f"{image.name}@{image.version}", ", ".join(sorted({one.region for one in all_}))
            raise NotFoundError(
                f"{name} has no {target.takes.upper()} in {target.region}" + (f"; it has in {there}" if there else ""),
                hint=f"bake publish {name} --to {target.takes}, or builder.ami_regions in its template",
            )
        return max(here, key=lambda one: (one.account == target.account, one.created))

    def _check_none_left(self, release: Release, access: Access) -> None:
        """BusyError, with what is found there, when a release to this target was left by a process that ended."""
        for left in self.catalog.releases.running():
            if _key(left) == _key(release):
                strategy = Strategy.from_json(left.details["strategy"])
                target = self._target(left.target, access, strategy)
                found = target.found(self._delivery(left, self.catalog.image(left.image), left.details), self._journal(left))
                raise BusyError(
                    f"release {left.title} of {left.name} to {left.target} has not ended on record, and nobody on this host works on it: "
                    f"{found}",
                    hint=f"bake release {left.name} --resume",
                )

    def _present(self, name: str, number: int | None, to: str, region: str) -> Release:
        """The release that a rollback takes back: the present one of the target that is meant."""
        found = [one for one in current(self.catalog) if one.name == name and to in ("", one.target) and region in ("", one.region)]
        if number is not None and not to:
            wanted = self.catalog.releases.get(name, number)
            found = [one for one in found if _key(one) == _key(wanted)]
        if not found:
            where = (f" to {to}" if to else "") + (f" in {region}" if region else "")
            raise NotFoundError(f"nothing of {name} has been released{where}", hint=f"bake releases {name}")
        if len({_key(one) for one in found}) > 1:
            there = ", ".join(f"{one.target} ({one.region})" for one in found)
            raise UsageError(f"{name} runs in {there}: which of them?", hint="--to TARGET, --region REGION, or the number of a release")
        return found[0]

    def _before(self, present: Release) -> Release:
        """The last good release before the present one, with another image. A rollback stands where the release stood that it brought
        back, so that going back twice goes back two; what is revoked is passed over."""
        last = present
        while last.rollback_of is not None:
            last = self.catalog.releases.get(last.name, last.rollback_of)
        revoked = self.catalog.revocations.in_force(self._now())
        for one in self.catalog.releases.all(present.name):
            fits = one.status == "succeeded" and one.number < last.number and _key(one) == _key(present)
            if fits and one.image != present.image and one.image not in revoked:
                return one
        raise NotFoundError(
            f"{present.name} has no good release to {present.target} before {last.title}", hint=f"bake releases {present.name}"
        )

    def _delivery(self, release: Release, image: ImageRecord, details: Mapping[str, Any]) -> Delivery:
        return Delivery(
            title=f"{release.name} {release.title}",
            image=f"{image.name}@{image.version}",
            reference=details["reference"],
            token=details["token"],
            strategy=Strategy.from_json(details["strategy"]),
            before=details["before"],
        )

    def _journal(self, release: Release) -> ReleaseProgress:
        report = Reporter(self.sink, f"{release.name} {release.title}")

        def keep(details: Mapping[str, Any]) -> None:
            self.catalog.releases.note(release, details)

        return ReleaseProgress(report, release.details, keep)

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock.date(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lease_of(release: Release) -> str:
    """The name of the lease on the target of a release."""
    return f"releases/{_key(release)}"


def _key(release: Release) -> str:
    """One per target, wherever it is."""
    return hashlib.sha256(f"{release.target}\n{release.region}\n{release.account}".encode()).hexdigest()[:32]


def _access(release: Release, given: Access | None) -> Access:
    """What a release was begun with, and what is given instead of it."""
    found: dict[str, Any] = {"region": release.region or None}
    for part in (release.details.get("access", {}), asdict(given) if given else {}):
        found |= {name: value for name, value in part.items() if value}
    return Access(**found)


def _check_place(release: Release, target: ReleaseTarget) -> None:
    """UsageError when the credentials of now lead elsewhere than where the release is known to be (a target of that name may be there)."""
    region, account = release.region or target.region, release.account or target.account
    if (region, account) != (target.region, target.account):
        raise UsageError(
            f"{release.target} of {release.name} is in {region} (account {account}), not in {target.region} (account {target.account})",
            hint="--region, --profile, --role-arn, or AWS_PROFILE",
        )


def _goes_on(release: Release) -> str:
    return f"release {release.title} is on record as running: bake release {release.name} --resume goes on from here"
