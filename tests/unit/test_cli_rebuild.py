"""What `bake rebuild` says, and with which exit code it ends; archives from one home to another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from baker.artifacts.trees import Difference
from baker.rebuild import causes
from baker.rebuild.levels import Level
from baker.rebuild.rebuild import RebuildOutcome
from tests.support.fake_app import Cli, an_image, fill

BASE, WEB = an_image("debian-13", "13.1.0", 1), an_image("web", "1.4.0", 2, parent="a00000000001")
GROUP = causes.Group(causes.ARCHIVE_ORDER, tuple(Difference(f"/srv/{number}.tar", ("content",)) for number in range(12)))
SHORT = RebuildOutcome(
    WEB,
    Level.INPUTS,
    "sha256:" + "c" * 64,
    ("the plan is another one",),
    (("nginx", "1.2", "1.3"), ("curl", "", "8.1")),
    (GROUP,),
    ("times/1",),
    75.0,
)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    cli = Cli(tmp_path)
    fill(cli.baker, BASE, WEB, change=lambda build: replace(build, reproduction={"wanted": True}))
    cli.script.verdicts = {image.id: RebuildOutcome(image, Level.DISK, image.digest, seconds=30.0) for image in (BASE, WEB)}
    return cli


def test_the_same_disk(cli: Cli) -> None:
    result = cli("rebuild", "web", "--var", "token=x")
    assert result.code == 0
    assert "web@1.4.0 (a00000000002) was rebuilt in 30s: L3: the same disk" in result.out
    assert cli.script.asked == {"rebuilt": [WEB.id], "secrets": {"token": "x"}}


def test_what_differs_is_shown_with_its_remedy_and_fails(cli: Cli) -> None:
    cli.script.verdicts[WEB.id] = SHORT
    result = cli("rebuild", "web")
    assert result.code == 4
    assert all(fact in result.err for fact in ("web@1.4.0", "L0", "L3", "[rebuild.level-not-reached]"))
    for line in (
        "was rebuilt in 1m15s: L0: every input pinned and kept",
        f"on record  {WEB.digest}",
        f"rebuilt    {SHORT.disk}",
        "the plan is another one",
        "2 packages",
        "nginx: 1.2 on record, 1.3",
        "curl: none on record, 8.1",
        "archive-order: ",
        "(12 paths)",
        "remedy: use tar --sort=name",
        "/srv/9.tar (content)",
        "and 2 more; --json lists all",
        "times/1",
    ):
        assert line in result.out, line
    assert "/srv/10.tar" not in result.out


def test_a_lower_level_can_be_asked_for(cli: Cli) -> None:
    cli.script.verdicts[WEB.id] = SHORT
    assert cli("rebuild", "web", "--level", "0").code == 0
    assert cli("rebuild", "web", "--level", "1").code == 4


def test_deep_begins_at_the_root_and_json_has_all(cli: Cli) -> None:
    cli.script.verdicts[WEB.id] = SHORT
    result = cli("rebuild", "web", "--deep", "--json")
    assert result.code == 4
    assert cli.script.asked["rebuilt"] == [BASE.id, WEB.id]
    found = json.loads(result.out)
    assert [(each["name"], each["level"], each["wanted"]) for each in found] == [("debian-13", 3, 3), ("web", 0, 3)]
    assert len(found[1]["causes"][0]["paths"]) == 12


def test_attest_signs_the_verdict(cli: Cli) -> None:
    assert cli("rebuild", "web", "--attest").code == 5, "there is no key"
    cli("keys", "create")
    assert cli("rebuild", "web", "--attest").code == 0
    assert "urn:bake:rebuild:v1" in cli("attest", "web", "--list").out


def test_an_archive_of_what_is_not_whole_is_refused_in_words(cli: Cli, tmp_path: Path) -> None:
    result = cli("archive", "web", "-o", tmp_path / "web.bake")
    assert result.code == 5
    assert f"the store lacks\n  a disk of image {WEB.id}: {WEB.chain[0]}" in result.err
    assert not (tmp_path / "web.bake").exists()
    assert cli("import", tmp_path / "web.bake").code == 2
    (tmp_path / "text.bake").write_text("x")
    wrong = cli("import", tmp_path / "text.bake")
    assert wrong.code == 6 and "text.bake" in wrong.err and "archive.invalid" in wrong.err
