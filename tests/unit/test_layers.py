"""Layers as a build uses them, on fakes: which machine it goes on from, and which it keeps."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.catalog.catalog import Catalog
from baker.core.errors import BuildError, HostError, StepError, UsageError
from baker.core.events import BuildFinished
from baker.core.host_facts import now
from baker.disks import qemuimg
from baker.layers.explain import explain
from baker.plan.plan import make_plan
from baker.plan.step_range import LayerOptions
from baker.sources import registry as sources
from baker.store.directory import DirectoryStore
from baker.trust.attest.keys import Keys
from baker.trust.attest.signing import TrustContext
from baker.trust.attest.verify import verify
from tests.support.fake_builder import FakeBuilder
from tests.support.until import until
from tests.support.workshop import STEPS, Workshop, open_workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as made:
        yield made


def test_the_first_build_boots_and_keeps_each_machine_that_pays(shop: Workshop) -> None:
    shop.bake()
    assert shop.builder.events == ["launch build", "keep 0", "keep 1", "keep 2", "keep 3"]
    assert (shop.kept(), shop.left()) == ([0, 1, 2, 3], [])


def test_a_change_of_the_last_step_goes_on_from_the_one_before(shop: Workshop) -> None:
    shop.bake()
    shop.bake("step-1", "step-2", "step-3b")
    assert shop.builder.events == ["restore 2", "keep 3"]
    assert (shop.cached, shop.ran) == ([1, 2], ["shell 3"])


def test_a_change_in_the_middle_goes_on_from_there_and_both_branches_stay(shop: Workshop) -> None:
    shop.bake()
    shop.bake("step-1", "step-2b", "step-3")
    assert shop.builder.events == ["restore 1", "keep 2", "keep 3"]
    shop.bake("step-1", "step-2", "step-3")
    assert shop.builder.events == ["restore 3"]
    assert shop.kept() == [0, 1, 2, 2, 3, 3]


def test_another_template_on_the_same_source_does_not_wait_for_a_boot(shop: Workshop) -> None:
    shop.bake()
    shop.bake("step-9", name="other")
    assert shop.builder.events == ["restore 0", "keep 1"]


def test_the_image_is_on_its_source_and_on_no_layer(shop: Workshop) -> None:
    shop.bake()
    image = shop.bake("step-1", "step-2", "step-3b").image
    assert image is not None and len(image.chain) == 2
    assert "layers" not in str(qemuimg.info(DirectoryStore(shop.home.blobs).path(image.chain[0]), "qcow2").backing_path)


def test_a_failed_build_goes_on_at_the_step_that_failed(shop: Workshop) -> None:
    shop.guests.fails = {"step-3"}
    with pytest.raises(StepError):
        shop.bake()
    assert (shop.kept(), shop.left()) == ([0, 1, 2], [])
    shop.guests.fails = set()
    shop.bake()
    assert (shop.builder.events, shop.ran) == (["restore 2", "keep 3"], ["shell 3"])


def test_what_costs_less_than_keeping_is_not_kept_but_is_before_a_step_that_failed_last_time(shop: Workshop) -> None:
    shop.guests.takes = {"step-1": 30.0, "step-2": 0.5, "step-3": 30.0}
    shop.guests.fails = {"step-3"}
    for kept in ([0, 1], [0, 1, 2]):
        with pytest.raises(StepError):
            shop.bake()
        assert shop.kept() == kept


def test_a_step_can_ask_for_its_machine_to_be_kept(shop: Workshop) -> None:
    shop.guests.takes = {}
    shop.bake("step-1", "shell: step-2\ncache: {keep: true}", "step-3")
    assert shop.kept() == [0, 2]


def test_from_carries_out_a_step_that_has_a_layer(shop: Workshop) -> None:
    shop.bake()
    shop.bake(first="2")
    assert (shop.cached, shop.ran) == ([1], ["shell 2", "shell 3"])
    assert shop.kept() == [0, 1, 2, 2, 3, 3], "what was made anew is kept beside what was there"


def test_until_keeps_the_machine_and_makes_no_image(shop: Workshop) -> None:
    shop.guests.takes = {}
    outcome = shop.bake(last="shell 2")
    assert outcome.image is None and shop.catalog.images() == []
    assert (shop.kept(), shop.ran, shop.left()) == ([0, 2], ["shell 1", "shell 2"], [])
    assert shop.catalog.builds("web")[0].status == "stopped"


@pytest.mark.parametrize(
    ("options", "code", "facts"),
    [
        ({"first": "shel 2"}, "usage.unknown-step", ("'shel 2'", "'shell 2'")),
        ({"last": "9"}, "usage.unknown-step", ("'9'",)),
        ({"first": "3", "last": "2"}, "usage.step-range", ("step 3", "step 2")),
    ],
)
def test_a_step_that_is_not_there_is_reported(shop: Workshop, options: dict[str, str], code: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        shop.bake(**options)
    assert caught.value.code == code
    assert all(fact in str(caught.value) for fact in facts)
    assert shop.left() == []


def test_no_cache_boots_and_makes_layers_anew(shop: Workshop) -> None:
    shop.bake()
    shop.bake(no_cache=True)
    assert shop.builder.events[0] == "launch build"
    assert shop.kept() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_step_with_cache_false_runs_in_every_build_and_nothing_after_it_is_kept(shop: Workshop) -> None:
    steps = ("step-1", "shell: step-2\ncache: false", "step-3")
    shop.bake(*steps)
    assert shop.kept() == [0, 1]
    shop.bake(*steps, force=False)
    assert shop.ran == ["shell 2", "shell 3"], "although an image with this fingerprint is there"


def test_a_step_with_max_age_runs_again_when_it_is_older(shop: Workshop) -> None:
    steps = ("step-1", "shell: step-2\ncache: {max_age: 1h}", "step-3")
    shop.bake(*steps)
    shop.clock.sleep(1800)
    assert shop.bake(*steps, force=False).unchanged
    shop.clock.sleep(1800)
    shop.bake(*steps, force=False)
    assert (shop.cached, shop.ran) == ([1], ["shell 2", "shell 3"])
    assert shop.bake(*steps, force=False).unchanged, "the new one is young again"


def test_no_machine_that_knows_a_secret_is_kept(shop: Workshop) -> None:
    more = "variables:\n  token: {type: string, sensitive: true, default: hunter2hunter2}\n"
    steps = ("step-1", "shell: {inline: step-2, env: {TOKEN: '${{ var.token }}'}}", "step-3")
    shop.bake(*steps, more=more)
    assert shop.kept() == [0, 1]


def test_a_layer_that_cannot_be_restored_is_told_and_passed_over(shop: Workshop) -> None:
    shop.bake()
    shop.builder.broken = {layer.id for layer in shop.layers.all() if layer.record.step > 1}
    shop.bake()
    assert shop.builder.events == ["restore 1", "keep 2", "keep 3"]
    assert "shell 3" in shop.said
    assert "it was kept with another QEMU" in shop.said
    shop.builder.broken = set()
    shop.bake()
    assert shop.builder.events == ["restore 3"], "the new one, not the broken one"


def test_without_any_layer_that_can_be_restored_it_boots(shop: Workshop) -> None:
    shop.bake()
    shop.builder.broken = {layer.id for layer in shop.layers.all()}
    shop.bake()
    assert shop.builder.events[0] == "launch build" and shop.ran == ["shell 1", "shell 2", "shell 3"]


@pytest.mark.parametrize("fault", ["fail_to_keep", "fail_to_pack"])
def test_a_machine_that_cannot_be_kept_does_not_stop_the_build(shop: Workshop, fault: str) -> None:
    setattr(shop.builder, fault, True)
    assert shop.bake().image is not None
    assert (shop.kept(), shop.left()) == ([], [])
    assert "kept" in shop.said


def test_a_connection_without_layers_builds_as_ever(shop: Workshop) -> None:
    shop.builder.can_keep = False
    assert shop.bake().image is not None
    assert (shop.builder.events, shop.kept()) == (["launch build"], [])
    with pytest.raises(BuildError) as caught:
        shop.bake(last="2")
    assert caught.value.code == "layer.not-kept"


def test_two_builds_that_share_steps_make_them_once(shop: Workshop) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(script: str) -> None:
        if "step-2" in script:
            reached.set()
            assert go_on.wait(30)

    shop.guests.before = hold
    second = Workshop(shop.home, shop.directory, shop.clock, FakeBuilder(shop.clock), shop.guests, Catalog(shop.home.catalog))
    first = threading.Thread(target=lambda: shop.bake("step-1", "step-2", "step-3a", name="one"))
    other = threading.Thread(target=lambda: second.bake("step-1", "step-2", "step-3b", name="two"))
    first.start()
    assert reached.wait(30)
    other.start()
    until(lambda: "waiting for it" in second.said or not other.is_alive(), 30, lambda: f"the other build says that it waits: {second.said}")
    assert other.is_alive()
    go_on.set()
    first.join(60)
    other.join(60)
    second.catalog.close()
    assert second.builder.events[0] == "restore 2" and second.ran == ["shell 3"]


# -- what `bake plan` says ---------------------------------------------------------------------------------------------------------


def reasons(shop: Workshop, *steps: str, wish: LayerOptions | None = None, **options: str) -> list[str]:
    template = shop.template(*steps, **options)
    source = sources.for_spec(template.source)
    from baker.sources.base import Context

    found = source.peek(template.source, Context.for_peek(shop.home, DirectoryStore(shop.home.blobs), shop.catalog, template.path.parent))
    assert found is not None
    explained = explain(
        make_plan(template, found), wish or LayerOptions(), shop.layers.find, shop.catalog.builds("web", limit=1)[0], shop.clock.date()
    )
    return ["cached" if step.cached else step.reason for step in explained]


def test_the_plan_says_which_input_changed(shop: Workshop) -> None:
    (shop.directory / "a.sh").write_text("step-2")
    put = "shell: {script: a.sh}"
    shop.bake("step-1", put, "step-3")
    assert reasons(shop, "step-1", put, "step-3") == ["cached", "cached", "cached"]
    assert reasons(shop, "step-1", put, "step-3b") == ["cached", "cached", "changed: inline"]
    (shop.directory / "a.sh").write_text("step-2b")
    assert reasons(shop, "step-1", put, "step-3") == ["cached", "changed: a.sh", "after a change of an earlier step"]
    assert reasons(shop, "step-0", put, "step-3")[0] == "changed: inline"
    assert reasons(shop, "step-1", wish=LayerOptions(use=False)) == ["--no-cache"]
    assert reasons(shop, "step-1", "step-2", "step-3", "step-4")[3] == "never run"


def test_the_plan_says_what_was_not_worth_keeping(shop: Workshop) -> None:
    shop.guests.takes = {"step-1": 30.0, "step-2": 0.5, "step-3": 0.5}
    shop.bake()
    assert reasons(shop, *STEPS) == ["cached", "not kept", "not kept"]


def test_the_plan_says_that_the_machine_is_another(shop: Workshop) -> None:
    shop.bake()
    assert reasons(shop, *STEPS, more="communicator: {ssh_timeout: 10s}\n") == ["cached"] * 3, "that changes nothing in the machine"
    assert reasons(shop, *STEPS, memory="2MiB") == ["after a change of builder.memory"] * 3


def test_a_disk_that_fills_up_in_a_step_is_told_as_such(shop: Workshop) -> None:
    def full(script: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shop.guests.before = full
    with pytest.raises(HostError, match="no space left for") as caught:
        shop.bake()
    assert caught.value.exit_code == 6
    assert "make room on" in caught.value.hint
    (end,) = (event for event in shop.heard.events if isinstance(event, BuildFinished))
    assert (end.status, end.error.startswith("no space left for")) == ("failed", True)
    assert shop.catalog.builds("web", limit=1)[0].status == "failed"


@pytest.mark.parametrize("policy", ["ask", "shell"])
def test_where_nobody_can_be_asked_the_cleanup_is_said(shop: Workshop, policy: str) -> None:
    shop.guests.fails.add("step-2")
    with pytest.raises(StepError):
        shop.bake(on_error=policy)
    assert f"on-error is {policy}" in shop.said
    assert "cleaning up" in shop.said
    assert shop.left() == []


# --- signing what is recorded ------------------------------------------------------------------------------------------


def test_an_image_is_attested_when_there_is_a_key(shop: Workshop) -> None:
    shop.bake()
    Keys(shop.home.data / "keys", {}).create()
    outcome = shop.bake()
    assert outcome.image
    (attestation,) = shop.catalog.attestations.of(outcome.image.id)
    checks = verify(outcome.image, TrustContext.of(shop.home, shop.catalog, DirectoryStore(shop.home.blobs), {}), at=now())
    assert [check.name for check in checks if not check.ok] == []
    assert attestation.predicate == "https://slsa.dev/provenance/v1"
    assert len([entry for entry in shop.catalog.journal.entries() if entry.kind == "attestation"]) == 1


def test_an_image_is_there_though_it_cannot_be_signed(shop: Workshop) -> None:
    Keys(shop.home.data / "keys", {"BAKE_KEY_PASSPHRASE": "x"}).create()
    outcome = shop.bake()
    assert outcome.image and shop.catalog.image(outcome.image.id)
    assert "the image is not attested: the key default cannot be opened" in shop.said
