"""Release a channel's image to a target: record it before anything is changed, follow it to its end, and roll it back when it fails.

A release whose process was killed stays `running` on record. AWS continues without bake, and `resume` continues from the record and the
state of the target.
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
    """Releases of one catalog's images. `targets` maps a kind to the factory of its targets."""

    catalog: Catalog
    leases: Leases
    sink: Sink = field(default_factory=Null)
    clock: Clock = field(default_factory=Clock)
    targets: Callable[[str], Factory] = registry.get

    # -- the operations -------------------------------------------------------------------------------------------------------

    def release(self, name: str, channel: str, to: str, strategy: Strategy, access: Access, *, why: str = "", wait: bool = True) -> Release:
        """Bring the image of `name`@`channel` to the target `to` ("asg/web-prod") as a new release, and return its record.

        Raises ReleaseError when that fails; the record then shows whether the target was rolled back. Without `wait` the returned release
        is still running.
        """
        found = self.catalog.channels.get(name, channel)
        if found is None:
            channels = ", ".join(one.channel for one in self.catalog.channels.all(name))
            raise NotFoundError(
                f"{name} has no channel {channel!r}",
                hint=f"its channels are {channels}" if channels else f"bake channel {name} {channel} --set {name}@VERSION makes it",
                code="channel.not-found",
            )
        return self._begin(Release(name, 0, found.image, channel, to, "running", who(), "", why=why), strategy, access, wait)

    def rollback(
        self, name: str, number: int | None = None, *, to: str = "", strategy: Strategy | None = None, access: Access | None = None,
        why: str = "", wait: bool = True,
    ) -> Release:  # fmt: skip
        """Bring the image of a former release back to its target, as a new release, and return its record.

        `number` None means the last successful release before the present one. Parts of `strategy` and `access` that are not given are
        those of the present release.
        """
        present = self._present(name, number, to, (access.region if access else None) or "")
        back = self.catalog.releases.get(name, number) if number is not None else self._before(present)
        if back.status != "succeeded" and number is not None:
            raise UsageError(
                f"release {back.title} of {name} did not succeed: its status is {back.status}",
                hint=f"name a release that succeeded: bake releases {name}",
                code="release.not-succeeded",
            )
        made = Release(
            name, 0, back.image, "", present.target, "running", who(), "", present.region, present.account, rollback_of=back.number, why=why
        )
        wanted = Strategy.from_json(present.details.get("strategy", {}))
        if strategy:
            wanted = replace(wanted, **{field: getattr(strategy, field) for field in strategy.given()})
        return self._begin(made, wanted, _access(present, access), wait)

    def resume(self, name: str, access: Access | None = None) -> list[Release]:
        """Continue the running releases of a name whose process has ended, and return their records.

        Parts of `access` that are given replace those that the release began with; they must lead to the same account and region.

        Raises NotFoundError when no release is running. A release that fails, or whose process still runs (BusyError), does not stop the
        others; the last such error is raised at the end.
        """
        left = self.catalog.releases.running(name)
        if not left:
            raise NotFoundError(f"no release of {name} is running", hint=f"bake releases {name}", code="release.none-running")
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
        """Whether a release is on record as running but no process on this host works on it."""
        if release.status != "running":
            return False
        with self.leases.try_exclusive(lease_of(release)) as alone:
            return alone is not None

    # -- the steps of a release -----------------------------------------------------------------------------------------------

    def _begin(self, asked: Release, strategy: Strategy, access: Access, wait: bool) -> Release:
        image = self.catalog.image(asked.image)
        self.catalog.check_usable(image, "for a release")
        target = self._target(asked.target, access, strategy)
        _check_place(asked, target)
        access = replace(access, region=target.region or access.region)  # record the region: `resume` may run in another environment
        publication = self._publication(image, target)
        release = replace(asked, region=target.region, account=target.account, started=self._now())
        with ExitStack() as stack:
            if stack.enter_context(self.leases.try_exclusive(lease_of(release))) is None:
                raise BusyError(
                    f"{self.leases.holder(lease_of(release))} is releasing to {release.target}",
                    hint=f"wait for it; bake releases {release.name} shows it",
                    code="release.running",
                )
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
            return self._run(release, image, target, wait)

    def _go_on(self, release: Release, access: Access | None) -> Release:
        with self.leases.try_exclusive(lease_of(release)) as alone:
            if alone is None:
                raise still_running(release)
            release = self.catalog.releases.get(release.name, release.number)
            if release.status != "running":  # the process that held the lock has just ended it
                return release
            details = release.details
            target = self._target(release.target, _access(release, access), Strategy.from_json(details["strategy"]))
            _check_place(release, target)
            image = self.catalog.image(release.image)
            journal = self._journal(release)
            journal.report.info(f"release {release.title}: {target.found(self._delivery(release, image, details), journal)}")
            return self._run(release, image, target, wait=True)

    def _run(self, release: Release, image: ImageRecord, target: ReleaseTarget, wait: bool) -> Release:
        """Run a release to its end. A HostError (no network, expired credentials) or an interrupt leaves it running, for `resume`."""
        delivery, journal = self._delivery(release, image, release.details), self._journal(release)
        try:
            if journal.details.get("failed"):  # the earlier process ended during the rollback
                raise ReleaseError(str(journal.details["failed"]))
            target.start(delivery, journal)
            if not wait:
                return self.catalog.releases.get(release.name, release.number)
            target.wait(delivery, journal)
        except (HostError, Interrupted, KeyboardInterrupt) as error:
            error.add_note(_resume_note(release))
            raise
        except BakeError as error:
            return self._fail(release, target, delivery, journal, error)
        return self._end(release, "succeeded")

    def _fail(self, release: Release, target: ReleaseTarget, delivery: Delivery, journal: ReleaseProgress, error: BakeError) -> Release:
        """Roll back if the strategy asks for it and AWS has not done so, record the end, and raise ReleaseError."""
        journal.note(failed=error.message)
        restored = getattr(error, "restored", False)
        second = ""
        if not restored and delivery.strategy.auto_rollback:
            try:
                with journal.report.stage("roll back", release.target):
                    restored = target.restore(delivery, journal)
            except (HostError, Interrupted, KeyboardInterrupt) as other:
                other.add_note(_resume_note(release))
                raise
            except BakeError as other:
                second = f"; the rollback failed too: {other.message}"
        self._end(release, "rolled back" if restored else "failed", error=error.message + second)
        outcome = "failed and was rolled back: the target has its former image" if restored else "failed and was not rolled back"
        raise ReleaseError(
            f"release {release.title} of {release.name} to {release.target} {outcome}\n    {error.message}{second}",
            hint=error.hint,
            code="release.rolled-back" if restored else "release.failed",
        ) from error

    def _end(self, release: Release, status: Status, error: str = "") -> Release:
        return self.catalog.releases.finish(release, status, at=self._now(), error=error)

    # -- helpers --------------------------------------------------------------------------------------------------------------

    def _target(self, text: str, access: Access, strategy: Strategy) -> ReleaseTarget:
        kind, name = registry.split(text)
        target = self.targets(kind)(name, access, self.clock)
        unsupported = sorted(strategy.given() - target.heeds)
        if unsupported:
            flags = {"auto_rollback": "--no-auto-rollback", "alarms": "--alarm"}
            shown = ", ".join(flags.get(name, f"--{name.replace('_', '-')}") for name in unsupported)
            raise UsageError(f"the target {text} does not support {shown}", hint="leave it out", code="release.option-unsupported")
        return target

    def _publication(self, image: ImageRecord, target: ReleaseTarget) -> Publication:
        """The image's newest publication in the target's region, in the target's own account if there is one."""
        all_ = self.catalog.publications(image.id, kind=target.takes)
        here = [one for one in all_ if one.region == target.region]
        if not here:
            name, regions = f"{image.name}@{image.version}", ", ".join(sorted({one.region for one in all_}))
            raise NotFoundError(
                f"{name} has no {target.takes.upper()} in {target.region}" + (f", only in {regions}" if regions else ""),
                hint=f"bake publish {name} --to {target.takes}, or builder.ami_regions in its template",
                code="release.not-published",
            )
        return max(here, key=lambda one: (one.account == target.account, one.created))

    def _check_none_left(self, release: Release, access: Access) -> None:
        """Raise BusyError, with the target's state, when another release to this target is still on record as running."""
        for left in self.catalog.releases.running():
            if _key(left) == _key(release):
                strategy = Strategy.from_json(left.details["strategy"])
                target = self._target(left.target, access, strategy)
                found = target.found(self._delivery(left, self.catalog.image(left.image), left.details), self._journal(left))
                raise BusyError(
                    f"release {left.title} of {left.name} to {left.target} is on record as running, but no process on this host works on "
                    f"it: {found}",
                    hint=f"bake release {left.name} --resume",
                    code="release.abandoned",
                )

    def _present(self, name: str, number: int | None, to: str, region: str) -> Release:
        """The release to roll back: the present one of the target that `number`, or `to` and `region`, select."""
        found = [one for one in current(self.catalog) if one.name == name and to in ("", one.target) and region in ("", one.region)]
        if number is not None and not to:
            wanted = self.catalog.releases.get(name, number)
            found = [one for one in found if _key(one) == _key(wanted)]
        if not found:
            where = (f" to {to}" if to else "") + (f" in {region}" if region else "")
            raise NotFoundError(f"{name} has not been released{where}", hint=f"bake releases {name}", code="release.never-released")
        if len({_key(one) for one in found}) > 1:
            targets = ", ".join(f"{one.target} ({one.region})" for one in found)
            raise UsageError(
                f"{name} runs in several targets: {targets}",
                hint="choose one with --to TARGET, --region REGION, or the number of a release",
                code="release.ambiguous-target",
            )
        return found[0]

    def _before(self, present: Release) -> Release:
        """The last successful release before the present one that has another image, which is not revoked.

        A rollback counts as the release that it restored, so that two rollbacks in a row go back by two releases.
        """
        last = present
        while last.rollback_of is not None:
            last = self.catalog.releases.get(last.name, last.rollback_of)
        revoked = self.catalog.revocations.in_force(self._now())
        for one in self.catalog.releases.all(present.name):
            fits = one.status == "succeeded" and one.number < last.number and _key(one) == _key(present)
            if fits and one.image != present.image and one.image not in revoked:
                return one
        raise NotFoundError(
            f"{present.name} has no successful release to {present.target} before {last.title}",
            hint=f"bake releases {present.name} lists all releases",
            code="release.no-former",
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
    """A name for the target of a release, unique across regions and accounts: 32 hex digits."""
    return hashlib.sha256(f"{release.target}\n{release.region}\n{release.account}".encode()).hexdigest()[:32]


def _access(release: Release, given: Access | None) -> Access:
    """The access that a release began with, with the parts of `given` replaced."""
    found: dict[str, Any] = {"region": release.region or None}
    for part in (release.details.get("access", {}), asdict(given) if given else {}):
        found |= {name: value for name, value in part.items() if value}
    return Access(**found)


def _check_place(release: Release, target: ReleaseTarget) -> None:
    """Raise UsageError when the present credentials lead to another account or region than the release's.

    A target of the same name may exist there.
    """
    region, account = release.region or target.region, release.account or target.account
    if (region, account) != (target.region, target.account):
        raise UsageError(
            f"{release.target} of {release.name} is in {region} (account {account}), not in {target.region} (account {target.account})",
            hint="select the right account and region with --region, --profile, --role-arn, or AWS_PROFILE",
            code="release.other-place",
        )


def _resume_note(release: Release) -> str:
    return f"release {release.title} is on record as running: bake release {release.name} --resume continues it"
