"""Every API call of a build on EC2 fails, in every way that matters: afterwards the account holds nothing of the build, or the ledger
names it and sweeping removes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baker.aws.session import Access
from baker.core.errors import BakeError
from baker.machines.ec2 import instances
from baker.machines.ec2.scope import Scope
from tests.ec2 import Emulator
from tests.support.cloud import REGION, Yard, yard

BUILDER = "ami_regions: [eu-west-1], ami_users: ['111122223333'], encrypted: false, deprecate_after: 90d, deregistration_protection: true"
CREATING = ("ImportKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateImage", "CopyImage")
REMOVING = ("DeleteKeyPair", "DeleteSecurityGroup", "TerminateInstances", "DeregisterImage", "DeleteSnapshot")
FOREVER = 1000
POLICY = Path(__file__).parents[2] / "docs/aws/build-policy.json"  # everything here, clean-up too, is done with no more rights
UNASKED = {"GetServiceQuota"}  # what a build does without when it is not answered


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.0) as cloud:
        yield cloud


@pytest.fixture
def shop(cloud: Emulator, tmp_path: Path) -> Iterator[Yard]:
    with yard(cloud, tmp_path) as shop:
        cloud.use_policy(POLICY)
        yield shop
        cloud.use_policy(None)
        assert (cloud.unread, cloud.denied) == ([], [])


def failed(shop: Yard, builder: str = BUILDER, **options: Any) -> str:
    """A build that must fail; what it said."""
    with pytest.raises(BakeError) as caught:
        shop.bake(builder, **options)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def nothing_left(shop: Yard, before: object, what: str) -> None:
    """The audit: whatever is still there must be in the ledger, and go by a sweep."""
    shop.cloud.faults.clear()
    if shop.cloud.inventory() != before:
        assert shop.ledgers(), f"{what}: something is left and no ledger names it: {shop.cloud.inventory()}"
    assert [each.error for each in shop.sweep() if each.error] == [], what
    assert (shop.cloud.inventory(), shop.ledgers()) == (before, []), what


def walk(shop: Yard, faults: list[dict[str, Any]], survivable: set[str]) -> None:
    """A build for each fault."""
    before = shop.cloud.inventory()
    for fault in faults:
        shop.cloud.faults.add(**fault)
        try:
            shop.bake(BUILDER, force=True)
        except BakeError:
            assert shop.cloud.faults.fired, fault
            nothing_left(shop, before, str(fault))
        else:
            assert fault["action"] in survivable, f"{fault} was survived"
            assert shop.ledgers() == []
            shop.fresh()


def test_each_call_may_be_the_one_that_fails(shop: Yard) -> None:
    shop.bake(BUILDER)
    calls = shop.actions()
    shop.fresh()
    numbered = [(action, calls[:index].count(action)) for index, action in enumerate(calls)]
    walk(shop, [{"action": action, "kind": "AccessDenied", "skip": skip} for action, skip in numbered], UNASKED)


def test_each_kind_of_call_may_never_be_answered_again(shop: Yard) -> None:
    shop.bake(BUILDER)
    actions = dict.fromkeys(shop.actions())
    shop.fresh()
    walk(shop, [{"action": action, "kind": "ExpiredToken", "times": FOREVER} for action in actions], UNASKED)


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_made_twice(shop: Yard) -> None:
    for action in CREATING:
        shop.cloud.faults.add(action, "reset")
    shop.bake(BUILDER)
    assert len(shop.cloud.faults.fired) == len(CREATING)
    assert {kind: len(things) for kind, things in shop.cloud.inventory()[REGION].items()} == {"images": 1, "snapshots": 1}
    assert shop.ledgers() == []


def test_what_was_made_without_any_answer_is_found_and_taken_away(shop: Yard) -> None:
    answered = {"CreateImage"}  # the second time it is refused as a duplicate, and that is an answer
    walk(shop, [{"action": action, "kind": "reset", "times": FOREVER} for action in CREATING], answered)


def test_throttling_and_5xx_are_waited_through(shop: Yard) -> None:
    shop.bake(BUILDER)
    actions = dict.fromkeys(shop.actions())
    shop.fresh()
    for action in actions:
        shop.cloud.faults.add(action, "RequestLimitExceeded", times=2)
        shop.cloud.faults.add(action, "InternalError", skip=2)
    shop.bake(BUILDER)
    assert shop.ledgers() == []


def test_what_cannot_be_taken_away_stays_in_the_ledger_until_it_can(shop: Yard) -> None:
    before = shop.cloud.inventory()
    for action in REMOVING:
        shop.cloud.faults.add(action, "AccessDenied", times=FOREVER)
    said = failed(shop)
    assert "not allowed to TerminateInstances" in said and "clean-up: deregister the image" in said
    assert set(shop.cloud.inventory()[REGION]) >= {"instances", "key-pairs", "security-groups", "images", "snapshots"}
    nothing_left(shop, before, "a build whose clean-up failed")


def test_an_image_that_is_on_record_is_never_swept(shop: Yard) -> None:
    image = shop.bake(BUILDER).image
    assert image is not None
    after = shop.cloud.inventory()
    with shop.services().ledger.open(image.build) as ledger:
        name = shop.catalog.publications(image.id)[0].details["name"]
        ledger.enter("ec2:image", region=REGION, build=image.build, name=name, access=shop.access, lasting=True)
    assert [each.error for each in shop.sweep()] == [""]
    assert (shop.cloud.inventory(), shop.ledgers()) == (after, [])


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        ("CreateImage", "image-failed", "is failed: "),
        ("CreateImage", "snapshot-error", "failed: "),
        ("CopyImage", "image-failed", "in eu-west-1 is failed: "),
        ("RunInstances", "instance-fails", "instead of running: "),
    ],
)
def test_things_that_end_badly_say_why(shop: Yard, action: str, kind: str, words: str) -> None:
    before = shop.cloud.inventory()
    shop.cloud.faults.add(action, kind)
    assert words in failed(shop)
    nothing_left(shop, before, kind)


def test_not_found_just_after_creation_is_waited_through(shop: Yard) -> None:
    for action in ("AuthorizeSecurityGroupIngress", "RunInstances", "DescribeInstances"):
        shop.cloud.faults.add(action, "NotFound", times=2)
    shop.bake(BUILDER)
    assert len(shop.cloud.faults.fired) == 6


def test_a_spot_instance_that_is_taken_away_is_told_and_nothing_stays(shop: Yard) -> None:
    before = shop.cloud.inventory()
    shop.cloud.faults.add("RunInstances", "spot-reclaim", seconds=0.0)
    said = failed(shop, "spot: true")
    assert "Spot" in said, said
    nothing_left(shop, before, "a spot instance that was reclaimed")


def scope_of(shop: Yard) -> Scope:
    access = Access(region=REGION, endpoint_url=shop.cloud.url)
    return Scope(shop.aws(access, shop.time), REGION, "0123456789ab", machine="build")


def begun(shop: Yard, scope: Scope, **more: Any) -> str:
    """An instance as a build starts it."""
    kinds = scope.tag_specifications("instance", *(["spot-instances-request"] if more else []))
    answer = shop.cloud.client("ec2").run_instances(
        ImageId=shop.ami, InstanceType="t3.micro", MinCount=1, MaxCount=1, TagSpecifications=kinds, **more
    )
    return str(answer["Instances"][0]["InstanceId"])


def test_what_no_answer_told_of_is_terminated_besides_what_is_known(shop: Yard) -> None:
    scope = scope_of(shop)
    known = begun(shop, scope)
    begun(shop, scope)
    instances.terminate(scope, instances.Started({known: shop.clock.now()}))
    assert "instances" not in shop.cloud.inventory().get(REGION, {})


def test_an_instance_that_is_not_visible_yet_is_terminated_once_it_is(shop: Yard) -> None:
    before = shop.cloud.inventory()
    shop.cloud.faults.add("DescribeInstances", "AccessDenied")
    shop.cloud.faults.add("TerminateInstances", "NotFound", times=3)
    failed(shop)
    assert (shop.cloud.inventory(), shop.ledgers()) == (before, [])
    assert len(shop.cloud.faults.fired) == 4


def test_a_spot_request_that_is_not_visible_yet_is_cancelled(shop: Yard) -> None:
    before, scope = shop.cloud.inventory(), scope_of(shop)
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    begun(shop, scope, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": options})
    shop.cloud.faults.add("DescribeSpotInstanceRequests", "NotFound", times=2)
    instances.terminate(scope, spot=True)
    assert shop.cloud.inventory() == before
