"""Releases with a target of the tests': numbers, roll-back, what a killed process leaves and who goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from baker.aws.session import Access
from baker.catalog.catalog import Catalog
from baker.catalog.records import Publication, Release, Revocation
from baker.catalog.revocations import RevokedError
from baker.core.errors import BuildError, BusyError, HostError, Interrupted, NotFoundError, UsageError
from baker.core.events import Memory, Progress
from baker.core.home import Home
from baker.core.leases import FileLeases
from baker.release.channels import assign
from baker.release.releases import Releaser, lease_of
from baker.release.revocations import revoke
from baker.release.targets import registry
from baker.release.targets.base import Factory, ReleaseError, Strategy
from tests.support.fake_app import a_build, an_image
from tests.support.fake_target import FakeTarget, Place, Places, broken, install
from tests.support.plugins import on_path

IMAGES = {version: an_image("web", version, number) for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0", "1.3.0"), start=1)}
TO = "fake/web-prod"


@dataclass
class Shop:
    """A catalog with web 1.0.0 to 1.3.0, each with an AMI in eu-west-1, and places to release to."""

    directory: Path
    services: Places = field(default_factory=Places)
    sink: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.home = Home.from_environment({"BAKE_HOME": str(self.directory)})
        self.leases = FileLeases(self.home.state)
        self.catalog = Catalog(self.directory / "catalog.sqlite")
        for version, image in IMAGES.items():
            self.catalog.register(a_build(image), image)
            self.catalog.publish(Publication(image.id, "ami", f"ami-{version}", "eu-west-1", "123456789012"))
        self.work = Releaser(self.catalog, self.leases, self.sink, targets=self.factory)

    def factory(self, kind: str) -> Factory:
        return (lambda name, access, clock: FakeTarget(name, access, clock, self.services)) if kind == "fake" else registry.get(kind)

    @property
    def place(self) -> Place:
        return self.services["web-prod"]

    def channel(self, version: str) -> None:
        assign(self.catalog, "web", "prod", IMAGES[version])

    def release(self, version: str, strategy: Strategy | None = None, to: str = TO, *, wait: bool = True) -> Release:
        self.channel(version)
        return self.work.release("web", "prod", to, strategy or Strategy(), Access(), why="because", wait=wait)

    def last(self) -> Release:
        return self.catalog.releases.all("web")[0]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.catalog.close()


def test_a_release_takes_what_the_channel_has(shop: Shop) -> None:
    done = shop.release("1.0.0", Strategy(min_healthy=50))
    assert (done.number, done.status, done.image, done.channel, done.target) == (1, "succeeded", IMAGES["1.0.0"].id, "prod", TO)
    assert (done.region, done.account, done.why, done.error) == ("eu-west-1", "123456789012", "because", "")
    assert done.finished
    assert done.details["strategy"]["min_healthy"] == 50
    assert done.details["before"] == {"image": ""}
    assert shop.place.image == "ami-1.0.0"
    assert [event.build for event in shop.sink.events if isinstance(event, Progress)] == ["web v1"]
    assert shop.release("1.1.0").number == 2


def test_what_is_refused_before_anything_is_changed(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match=r"web .* 'prod'\n.*--set web@VERSION") as missing:
        shop.work.release("web", "prod", TO, Strategy(), Access())
    assert missing.value.code == "channel.not-found"
    shop.channel("1.0.0")
    with pytest.raises(NotFoundError, match=r"AMI in us-east-1.* in eu-west-1") as missing:
        shop.work.release("web", "prod", TO, Strategy(), Access(region="us-east-1"))
    assert missing.value.code == "release.not-published"
    with pytest.raises(UsageError, match=r"fake/web-prod .*--alarm, --set-default") as unsupported:
        shop.work.release("web", "prod", TO, Strategy(alarms=("x",), set_default=True), Access())
    assert unsupported.value.code == "release.option-unsupported"
    for to, words in (
        ("web-prod", "is not a release target"),
        ("asg/", "is not a release target"),
        ("k8s/web", "no release target of kind 'k8s'"),
    ):
        with pytest.raises(UsageError, match=words):
            shop.work.release("web", "prod", to, Strategy(), Access())
    revoke(shop.catalog, IMAGES["1.0.0"], "CVE")
    with pytest.raises(RevokedError, match="cannot be used for a release: CVE"):
        shop.work.release("web", "prod", TO, Strategy(), Access())
    shop.catalog.publish(Publication(IMAGES["1.1.0"].id, "ami", "ami-bad", "eu-west-1", "123456789012", created="2026-11-30T00:00:00Z"))
    with pytest.raises(BuildError, match="ami-bad"):
        shop.release("1.1.0")
    assert shop.catalog.releases.all() == []
    assert shop.place.asked == []


def test_an_ami_of_the_targets_own_account_comes_first(shop: Shop) -> None:
    shop.catalog.publish(Publication(IMAGES["1.0.0"].id, "ami", "ami-other", "eu-west-1", "999999999999", created="2026-11-30T00:00:00Z"))
    assert shop.release("1.0.0").details["reference"] == "ami-1.0.0"


def test_a_failed_release_is_rolled_back_and_says_so(shop: Shop) -> None:
    shop.release("1.0.0")
    shop.place.wait_error = broken()
    with pytest.raises(ReleaseError, match=r"(?s)release v2 of web to fake/web-prod .*2 instances are"):
        shop.release("1.1.0")
    assert shop.place.asked[-1] == "restore ami-1.0.0"
    assert (shop.place.image, shop.last().status, shop.last().error) == ("ami-1.0.0", "rolled back", "2 instances are unhealthy")


@pytest.mark.parametrize(
    ("error", "restore_error", "strategy", "status", "asked"),
    [
        (broken(restored=True), None, Strategy(), "rolled back", "wait"),  # by AWS itself
        (broken(), None, Strategy(auto_rollback=False), "failed", "wait"),
        (broken(), BuildError("the old AMI is gone"), Strategy(), "failed", "restore ami-1.0.0"),
    ],
)
def test_who_rolls_back(
    shop: Shop, error: BaseException, restore_error: BuildError | None, strategy: Strategy, status: str, asked: str
) -> None:
    shop.release("1.0.0")
    shop.place.wait_error, shop.place.restore_error = error, restore_error
    with pytest.raises(ReleaseError) as failure:
        shop.release("1.1.0", strategy)
    assert (shop.last().status, shop.place.asked[-1]) == (status, asked)
    assert failure.value.code == {"rolled back": "release.rolled-back", "failed": "release.failed"}[status]
    if restore_error:
        assert "the old AMI is gone" in str(failure.value)
        assert shop.last().error.endswith("the old AMI is gone")


def test_a_release_that_changed_nothing_has_failed_and_no_more(shop: Shop) -> None:
    shop.place.start_error = broken("no capacity")
    with pytest.raises(ReleaseError, match="no capacity") as failure:
        shop.release("1.0.0")
    assert (shop.last().status, failure.value.code) == ("failed", "release.failed")


# -- killed processes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Interrupted(15), HostError("the credentials ran out")])
def test_an_interrupted_release_stays_running_and_is_gone_on_with(shop: Shop, end: BaseException) -> None:
    shop.place.wait_error = end
    with pytest.raises(type(end)) as raised:
        shop.release("1.0.0")
    assert "bake release web --resume" in raised.value.__notes__[0]
    left = shop.last()
    assert (left.status, shop.work.abandoned(left)) == ("running", True)
    shop.place.wait_error = None
    with pytest.raises(BusyError, match=r"release v1 of web to fake/web-prod .*: the place has ami-1.0.0\n.*--resume") as busy:
        shop.release("1.1.0")
    assert busy.value.code == "release.abandoned"
    [ended] = shop.work.resume("web")
    assert (ended.number, ended.status, ended.image) == (1, "succeeded", IMAGES["1.0.0"].id)
    assert shop.place.asked == ["start ami-1.0.0", "wait", "start ami-1.0.0", "wait"]
    with pytest.raises(NotFoundError, match="web") as missing:
        shop.work.resume("web")
    assert missing.value.code == "release.none-running"


def test_a_process_that_ended_while_rolling_back_goes_on_rolling_back(shop: Shop) -> None:
    shop.release("1.0.0")
    shop.place.wait_error = broken("unhealthy")
    shop.place.restore_error = Interrupted(9)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        shop.release("1.1.0")
    assert shop.last().status == "running"
    shop.place.wait_error = shop.place.restore_error = None
    with pytest.raises(ReleaseError, match="unhealthy") as failure:
        shop.work.resume("web")
    assert failure.value.code == "release.rolled-back"
    assert (shop.place.image, shop.last().status) == ("ami-1.0.0", "rolled back")
    assert shop.place.asked[-1] == "restore ami-1.0.0"


def test_a_release_that_lives_is_left_alone(shop: Shop) -> None:
    started = shop.release("1.0.0", wait=False)
    assert (started.status, shop.place.asked) == ("running", ["start ami-1.0.0"])
    with shop.leases.exclusive(lease_of(started)) as lease:
        assert not shop.work.abandoned(started)
        with pytest.raises(BusyError, match="release v1 of web to fake/web-prod") as running:
            shop.work.resume("web")
        with pytest.raises(BusyError, match=f"{lease.owner} is releasing to fake/web-prod") as busy:
            shop.release("1.1.0")
        assert (running.value.code, busy.value.code) == ("release.running", "release.running")
        assert shop.release("1.1.0", to="fake/elsewhere").status == "succeeded"
    assert shop.work.resume("web")[0].status == "succeeded"


def test_one_release_that_lives_does_not_keep_the_others(shop: Shop) -> None:
    alive = shop.release("1.0.0", wait=False)
    shop.release("1.1.0", to="fake/elsewhere", wait=False)
    with shop.leases.exclusive(lease_of(alive)), pytest.raises(BusyError, match="release v1 of web"):
        shop.work.resume("web")
    assert [one.status for one in shop.catalog.releases.all("web")] == ["succeeded", "running"]


def test_a_release_that_ended_meanwhile_is_not_gone_on_with(shop: Shop) -> None:
    left = shop.release("1.0.0", wait=False)
    shop.catalog.releases.finish(left, "succeeded", at="2026-11-22T10:00:00Z")
    assert shop.work._go_on(left, None).status == "succeeded"
    assert shop.place.asked == ["start ami-1.0.0"]


# -- roll-back ------------------------------------------------------------------------------------------------------------------


def test_a_rollback_is_a_new_release_of_an_old_image(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        shop.release(version, Strategy(min_healthy=75))
    back = shop.work.rollback("web", why="errors in checkout")
    assert (back.number, back.rollback_of, back.image, back.status) == (4, 2, IMAGES["1.1.0"].id, "succeeded")
    assert back.details["strategy"]["min_healthy"] == 75, "as the present release"
    assert shop.place.image == "ami-1.1.0"
    assert shop.work.rollback("web").rollback_of == 1, "back twice goes back two"
    with pytest.raises(NotFoundError, match="fake/web-prod before v1") as missing:
        shop.work.rollback("web")
    assert missing.value.code == "release.no-former"
    assert shop.work.rollback("web", 3).image == IMAGES["1.2.0"].id


def test_a_rollback_goes_to_what_ran_before_though_that_was_a_rollback(shop: Shop) -> None:
    """v3 took the bad v2 back: whoever takes v4 back wants what v3 brought, not v2 again."""
    shop.release("1.0.0")
    shop.release("1.1.0")
    shop.work.rollback("web")
    shop.release("1.2.0")
    back = shop.work.rollback("web")
    assert (back.rollback_of, back.image) == (3, IMAGES["1.0.0"].id)
    with pytest.raises(NotFoundError, match="before v1"):
        shop.work.rollback("web")


def test_a_rollback_passes_over_what_failed_and_what_is_revoked(shop: Shop) -> None:
    shop.release("1.0.0")
    shop.place.wait_error = broken()
    with pytest.raises(ReleaseError):
        shop.release("1.1.0")
    shop.place.wait_error = None
    shop.release("1.2.0")
    shop.release("1.3.0")
    shop.catalog.revocations.add(Revocation(IMAGES["1.2.0"].id, "CVE", "me", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"))
    with pytest.raises(RevokedError):
        shop.work.rollback("web", 3)
    with pytest.raises(UsageError, match=r"release v2 of web .* rolled back") as refused:
        shop.work.rollback("web", 2)
    assert refused.value.code == "release.not-succeeded"
    assert shop.work.rollback("web").rollback_of == 1


def test_a_rollback_asks_which_target_is_meant(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0"):
        for to in (TO, "fake/staging"):
            shop.release(version, to=to)
    with pytest.raises(UsageError, match=r"fake/staging .eu-west-1., fake/web-prod .eu-west-1.") as ambiguous:
        shop.work.rollback("web")
    assert ambiguous.value.code == "release.ambiguous-target"
    assert shop.work.rollback("web", to="fake/staging").target == "fake/staging"
    assert shop.services["staging"].image == "ami-1.0.0"
    assert shop.place.image == "ami-1.1.0"
    assert shop.work.rollback("web", 1).target == TO, "the number says where"
    with pytest.raises(NotFoundError, match="shop") as missing:
        shop.work.rollback("shop")
    assert missing.value.code == "release.never-released"


def test_a_rollback_uses_the_access_of_the_present_release(shop: Shop) -> None:
    shop.release("1.0.0")
    shop.channel("1.1.0")
    shop.work.release("web", "prod", TO, Strategy(), Access(profile="prod", role_arn="arn:aws:iam::1:role/r"))
    shop.work.rollback("web", access=Access(role_arn="arn:aws:iam::1:role/other"))
    assert shop.place.accesses[-1] == Access(region="eu-west-1", profile="prod", role_arn="arn:aws:iam::1:role/other")


def test_a_rollback_keeps_what_of_the_strategy_is_not_given(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0"):
        shop.release(version, Strategy(min_healthy=75, timeout=60.0))
    found = shop.work.rollback("web", strategy=Strategy(timeout=90.0)).details["strategy"]
    assert (found["min_healthy"], found["timeout"]) == (75, 90.0)


def test_a_rollback_of_a_name_that_runs_in_two_regions(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0"):
        shop.catalog.publish(Publication(IMAGES[version].id, "ami", f"ami-us-{version}", "us-east-1", "123456789012"))
        shop.release(version)
        shop.work.release("web", "prod", TO, Strategy(), Access(region="us-east-1"))
    with pytest.raises(UsageError, match="eu-west-1") as ambiguous:
        shop.work.rollback("web", to=TO)
    assert ambiguous.value.code == "release.ambiguous-target"
    with pytest.raises(NotFoundError, match=r"web .* to fake/web-prod in ap-south-1") as missing:
        shop.work.rollback("web", to=TO, access=Access(region="ap-south-1"))
    assert missing.value.code == "release.never-released"
    assert shop.work.rollback("web", access=Access(region="us-east-1")).details["reference"] == "ami-us-1.0.0"


def test_a_release_stays_where_it_was_begun(shop: Shop) -> None:
    """AWS_REGION and AWS_PROFILE of whoever goes on may be others."""
    shop.release("1.0.0")
    shop.release("1.1.0", wait=False)
    shop.place.region = "us-east-1"
    with pytest.raises(UsageError, match=r"eu-west-1 .account 1234.*us-east-1") as refused:
        shop.work.resume("web", Access(region="us-east-1"))
    assert refused.value.code == "release.other-place"
    assert shop.work.resume("web")[0].details["access"]["region"] == "eu-west-1"
    assert shop.place.accesses[-1].region == "eu-west-1"
    shop.place.account = "999999999999"
    with pytest.raises(UsageError, match=r"eu-west-1 .account 123456789012., .* eu-west-1 .account 999999999999.") as refused:
        shop.work.rollback("web")
    assert refused.value.code == "release.other-place"
    shop.place.account = "123456789012"
    assert shop.work.rollback("web").region == "eu-west-1"


# -- revoking, plugins ----------------------------------------------------------------------------------------------------------


def test_revoking_tells_who_uses_it_and_moves_channels_back(shop: Shop) -> None:
    shop.release("1.0.0")
    shop.release("1.1.0")
    found = revoke(shop.catalog, IMAGES["1.1.0"], "CVE")
    assert [(one.name, one.channel) for one in found.channels] == [("web", "prod")]
    assert [one.number for one in found.releases] == [2]
    with pytest.raises(RevokedError, match="in a channel"):
        assign(shop.catalog, "web", "canary", IMAGES["1.1.0"])
    found = revoke(shop.catalog, IMAGES["1.1.0"], "CVE", rollback_channels=True)
    assert (found.channels, [(channel.channel, back.version) for channel, back in found.moved]) == ((), [("prod", "1.0.0")])
    assert shop.catalog.channels.events("web", "prod")[0].why == "web@1.1.0 was revoked: CVE"
    assert shop.catalog.resolve("web@prod").version == "1.0.0"


def test_a_channel_takes_images_of_its_own_name_and_a_name_that_is_no_version(shop: Shop) -> None:
    with pytest.raises(UsageError, match=r"web@1\.0\.0 .* shop") as refused:
        assign(shop.catalog, "shop", "prod", IMAGES["1.0.0"])
    assert refused.value.code == "channel.other-image"
    for name in ("latest", "1.x", "Prod"):
        with pytest.raises(UsageError, match=name) as refused:
            assign(shop.catalog, "web", name, IMAGES["1.0.0"])
        assert refused.value.code == "channel.name"


def test_a_target_from_a_plugin(tmp_path: Path) -> None:
    with on_path(install(tmp_path)):
        assert registry.kinds() == ("asg", "lt", "ssm", "fake")
        assert registry.get("fake") is FakeTarget  # type: ignore[comparison-overlap]
    assert registry.kinds() == ("asg", "lt", "ssm")


def test_a_strategy_comes_back_from_json() -> None:
    strategy = Strategy(min_healthy=90, checkpoints=(50, 100), alarms=("a",), auto_rollback=False)
    assert Strategy.from_json(strategy.to_json() | {"checkpoints": [50, 100], "alarms": ["a"], "unknown": 1}) == strategy
    assert strategy.given() == {"min_healthy", "checkpoints", "alarms", "auto_rollback"}
