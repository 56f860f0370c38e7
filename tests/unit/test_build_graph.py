"""Which builds a run is made of, as `Baker.build` answers: nothing here gets as far as a machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.api import Baker
from baker.core.errors import NotFoundError, TemplateError, UsageError
from baker.core.events import BuildStarted, Memory, TemplateRejected, from_json
from baker.core.home import Home
from baker.plan.requests import BuildRequest
from tests.support.fake_app import an_image, fill

NO_DISK = "file: {path: disk.raw, checksum: 'sha256:" + 64 * "0" + "'}"


@pytest.fixture
def heard() -> Memory:
    return Memory(only=BuildStarted)


@pytest.fixture
def bake(tmp_path: Path, heard: Memory) -> Iterator[Baker]:
    with Baker(Home.from_environment({"BAKE_HOME": str(tmp_path / "home")}), sink=heard, env={}) as made:
        yield made


@pytest.fixture
def template(tmp_path: Path):
    """Writes a template; its request."""
    (tmp_path / "disk.raw").write_bytes(bytes(4096))

    def write(name: str, source: str, directory: str = ".") -> BuildRequest:
        path = tmp_path / directory / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"schema: 1\nname: {name}\nversion: 1.0.0\nsource: {{{source}}}\n")
        return BuildRequest(path)

    return write


def test_a_missing_image_stops_everything_before_it_begins(bake: Baker, template, heard: Memory) -> None:
    with pytest.raises(NotFoundError, match=r"^lost\.yaml: .*'nowhere'") as error:
        bake.build([template("disk", NO_DISK), template("lost", "image: nowhere")])
    assert (error.value.code, heard.events) == ("plan.missing-parent", [])


def test_keeping_going_a_missing_image_fails_its_own_build(bake: Baker, template) -> None:
    requests = [template("lost", "image: nowhere"), template("on-lost", "image: lost@^1"), template("disk", NO_DISK)]
    lost, on_lost, disk = sorted(bake.build(requests, parallel=1, fail_fast=False), key=lambda r: ["lost", "on-lost", "disk"].index(r.name))
    assert (lost.status, lost.exit_code, lost.code, lost.build_id) == ("failed", 5, "plan.missing-parent", "")
    assert "'nowhere'" in lost.error
    assert on_lost.status == "skipped"
    assert "it needs lost, which failed" in on_lost.error
    assert (disk.status, disk.exit_code) == ("failed", 3), "it was begun, and its disk is not what it should be"
    assert disk.code == "source.checksum"
    assert "disk.raw" in disk.error


def test_keeping_going_a_base_of_another_version_fails_its_own_build(bake: Baker, template) -> None:
    template("base", NO_DISK)
    (web,) = bake.build([template("web", "image: base@^2")], fail_fast=False)
    assert (web.status, web.exit_code, web.code) == ("failed", 2, "plan.parent-version")
    assert all(fact in web.error for fact in ("web.yaml", "base@^2", "base.yaml", "base@1.0.0"))
    with pytest.raises(UsageError, match=r"base@1\.0\.0"):
        bake.build([template("web", "image: base@^2")])


def test_the_ways_out_of_a_missing_image_are_named(bake: Baker, template) -> None:
    with pytest.raises(NotFoundError) as caught:
        bake.build([template("web", "image: base@^2")])
    hint = caught.value.hint
    assert "the directory of web.yaml" in hint
    assert "source: {image: {name: base@^2, template: path/to/base.yaml}}" in hint
    assert "bake build path/to/base.yaml" in hint


def test_what_there_is_instead_is_named_too(bake: Baker, template) -> None:
    fill(bake, an_image("base", "1.4.0"))
    with pytest.raises(NotFoundError, match=r"base.*\^2") as caught:
        bake.build([template("web", "image: base@^2")])
    assert caught.value.code == "plan.missing-parent" and "base@1.4.0" in caught.value.hint


def test_a_named_template_that_bakes_another_image_is_named(bake: Baker, template) -> None:
    template("other", NO_DISK)
    with pytest.raises(NotFoundError) as caught:
        bake.build([template("web", "image: {name: base, template: other.yaml}")])
    assert "other.yaml bakes no base" in caught.value.hint


def test_a_template_elsewhere_is_found_where_it_is_named(bake: Baker, template) -> None:
    template("base", "image: nowhere", "elsewhere")
    with pytest.raises(NotFoundError, match=r"^base\.yaml: .*'nowhere'"):
        bake.build([template("web", "image: {name: base, template: elsewhere/base.yaml}")])


@pytest.mark.parametrize("fail_fast", [True, False])
def test_a_template_with_problems_is_an_event(tmp_path: Path, fail_fast: bool) -> None:
    path, heard = tmp_path / "web.yaml", Memory()
    path.write_text("schema: 1\nname: web\nversion: 1.0.0\nsource: {debootstrap: trixie}\nbuilder: {memory: lots, cpsu: 2}\n")
    with Baker(Home.from_environment({"BAKE_HOME": str(tmp_path / "home")}), sink=heard, env={}) as bake:
        with pytest.raises(TemplateError):
            bake.build([BuildRequest(path)], fail_fast=fail_fast)
    (event,) = heard.events
    assert isinstance(event, TemplateRejected) and from_json(event.to_json()) == event
    assert [(problem["file"], problem["line"], problem["column"]) for problem in event.problems] == [(str(path), 5, 19), (str(path), 5, 25)]
    assert event.problems[1]["message"] == 'unknown key "cpsu"' and event.problems[1]["hint"] == "did you mean cpus?"


def test_a_broken_template_of_a_base_is_an_event_too(bake: Baker, template, heard: Memory, tmp_path: Path) -> None:
    heard.only = TemplateRejected
    (tmp_path / "base.yaml").write_text("name: base\n")
    (web,) = bake.build([template("web", "image: base@^2")], fail_fast=False)
    assert (web.status, web.exit_code) == ("failed", 2)
    (event,) = heard.events
    assert isinstance(event, TemplateRejected) and event.problems[0]["file"].endswith("base.yaml")
