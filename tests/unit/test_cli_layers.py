"""The command line of layers: what `du`, `gc`, `plan` and `shell --layer` say. The layers are files; no machine runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baker.api import Baker
from baker.catalog.records import StepRecord
from baker.core.home import Home
from baker.layers.store import LayerRecord, LayerStore
from baker.upkeep.sweep import Swept
from tests.support.fake_app import Cli, a_build, an_image, fill

KEYS = ("1" * 64, "2" * 64)


@pytest.fixture
def shop(tmp_path: Path) -> Cli:
    """A catalog with web, whose build had two steps, and layers of a boot and the first step."""
    cli = Cli(tmp_path)
    image = an_image("web", "1.0.0", 1)
    baker = cli.baker
    steps = (StepRecord(1, "packages", "shell", KEYS[0], "web.yaml:9:5"), StepRecord(2, "page", "file", KEYS[1], "web.yaml:12:5"))
    fill(baker, image, change=lambda build: a_build(image, steps=steps, evidence=dict(build.evidence)))
    baker.catalog.close()
    store = LayerStore(Home.from_environment(cli.environment).layers)
    boot = make(store, "0" * 64, 0, "boot", None)
    make(store, KEYS[0], 1, "packages", boot)
    return cli


def make(store: LayerStore, key: str, step: int, name: str, parent: str | None) -> str:
    place = store.machine_directory("0" * 12, step)
    place.mkdir(parents=True)
    (place / "memory.zst").write_bytes(b"x" * 300_000)
    return store.commit(place, LayerRecord(key, parent, step, name, "web", f"{step}" * 12, 1.7e9, 30.0, 1.0)).id


def test_du_counts_layers_and_says_what_needs_them(shop: Cli) -> None:
    lines = shop("du").out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "SIZE", "NEEDED", "BY", "LAST", "USED"]
    assert any("layer" in line and "web@0 boot" in line and "web@1" in line for line in lines)
    items = json.loads(shop("du", "--json").out)
    assert {item["kind"] for item in items} >= {"image", "layer", "evidence"}
    assert all(item["size"] >= 0 for item in items)


def test_du_of_an_empty_home_says_so(tmp_path: Path) -> None:
    result = Cli(tmp_path)("du")
    assert (result.code, result.out) == (0, "") and result.err


def test_gc_removes_what_is_above_first_and_says_why(shop: Cli) -> None:
    shown = shop("gc", "--keep-size", "0", "--dry-run")
    assert [line.split(",")[0] for line in shown.out.splitlines()] == ["would remove layer web@1 packages", "would remove layer web@0 boot"]
    assert "2 items to remove" in shown.err
    assert [item["name"] for item in json.loads(shop("gc", "--keep-size", "0", "--json").out)] == ["web@1 packages", "web@0 boot"]
    assert "nothing to remove" in shop("gc", "--keep-size", "0").err


def test_gc_keeps_to_the_budget_of_the_environment(shop: Cli) -> None:
    shop.env["BAKE_CACHE_SIZE"] = "1GiB"
    assert "nothing to remove" in shop("gc").err
    shop.env["BAKE_CACHE_SIZE"] = "400KiB"
    assert [line.partition(",")[0] for line in shop("gc").out.splitlines()] == ["removed layer web@1 packages"]


@pytest.mark.parametrize(("flag", "value", "code"), [("--keep-size", "much", "usage.bad-size"), ("--max-age", "old", "usage.bad-time")])
def test_gc_wants_sizes_and_times(shop: Cli, flag: str, value: str, code: str) -> None:
    result = shop("gc", flag, value)
    assert result.code == 2 and f"[{code}]" in result.err
    assert all(fact in result.err for fact in (flag, value))


def test_a_cache_size_that_is_none_is_told(shop: Cli) -> None:
    shop.env["BAKE_CACHE_SIZE"] = "huge"
    result = shop("gc")
    assert result.code == 2 and "BAKE_CACHE_SIZE" in result.err


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("shell", "--layer", "web@2"), 5, "web after step 2 (page)\nafter the steps 1; bake build"),
        (("shell", "--layer", "web@nginx"), 5, "web has no step 'nginx'\n1 packages, 2 page"),
        (("shell", "--layer", "shop@1"), 5, "no template called shop"),
        (("run", "--layer", "web"), 2, "'web'\nNAME@STEP"),
        (("shell",), 2, "IMAGE\n--layer\n[usage.one-of]"),
        (("shell", "web", "--layer", "web@1"), 2, "IMAGE\n--layer\n[usage.one-of]"),
    ],
)
def test_a_layer_that_is_not_there_is_told_with_what_there_is(shop: Cli, argv: tuple[str, ...], code: int, words: str) -> None:
    result = shop(*argv)
    assert result.code == code
    assert all(part in result.err for part in words.split("\n")), result.err


def test_what_nothing_refers_to_is_listed_before_and_after_it_goes(shop: Cli) -> None:
    with Baker(Home.from_environment(shop.environment), env={}) as bake:
        orphan = bake.store.add_bytes(b"nobody's")
        assert [(item.build, item.kind, item.name) for item in bake.sweep(dry_run=True)] == [("", "blob", orphan)]
        assert [(item.kind, item.id, item.size) for item in bake.collect(dry_run=True)] == [("blob", orphan, 8)]
        assert bake.store.has(orphan)
        assert [(item.kind, item.id) for item in bake.collect()] == [("blob", orphan)]
        again = bake.store.add_bytes(b"nobody's")
        assert [(item.kind, item.name) for item in bake.sweep()] == [("blob", again)]
        assert not bake.store.has(again)


def test_what_only_a_doomed_layer_stands_on_is_listed_too(shop: Cli) -> None:
    with Baker(Home.from_environment(shop.environment), env={}) as bake:
        below = bake.store.add_bytes(b"a source")
        place = bake.layers.machine_directory("0" * 12, 7)
        place.mkdir(parents=True)
        (place / "memory.zst").write_bytes(b"x")
        bake.layers.commit(place, LayerRecord("7" * 64, None, 1, "one", "web", "7" * 12, 1.7e9, 30.0, 1.0, blobs=(below,)))
        assert bake.sweep(dry_run=True) == []
        kinds = [(item.kind, item.id) for item in bake.collect(budget=0, dry_run=True)]
        assert [kind for kind, _ in kinds].count("layer") == 3 and kinds[-1] == ("blob", below)
        assert [(item.kind, item.id) for item in bake.collect(budget=0)] == kinds


def test_sweep_says_that_nothing_refers_to_a_blob(shop: Cli) -> None:
    shop.script.swept = [Swept("", "blob", "sha256:1")]
    assert shop("sweep", "--dry-run").out == "would remove blob sha256:1, which nothing refers to\n"
