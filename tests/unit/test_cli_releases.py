"""The commands about channels, revocation, releases, resolving and the lifecycle, as people type them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.catalog.records import Publication
from tests.support import fake_target
from tests.support.fake_app import Cli, an_image, fill
from tests.support.fake_target import broken
from tests.support.plugins import on_path

BASE = an_image("debian-13", "13.1.0", 1)
OLD, NEW = an_image("web", "1.3.0", 2, parent=BASE.id), an_image("web", "1.4.0", 3, parent=BASE.id)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that `cli` has a copy of: nobody may change it."""
    cli = Cli(tmp_path_factory.mktemp("filled") / "home")
    with cli.baker as baker:
        fill(baker, BASE, OLD, NEW)
        for number, image in enumerate((OLD, NEW), start=3):
            for region in ("eu-west-1", "us-east-1"):
                baker.catalog.publish(Publication(image.id, "ami", f"ami-{number}-{region}", region, "123456789012"))
    return cli.home


@pytest.fixture
def cli(filled: Path, tmp_path: Path) -> Iterator[Cli]:
    """debian-13, and web 1.3.0 and 1.4.0 on it with AMIs in two regions; the target kind `fake`."""
    cli = Cli(tmp_path / "home")
    shutil.copytree(filled, cli.home)
    fake_target.WORLD.by_name.clear()
    with on_path(fake_target.install(tmp_path / "plugins")):
        yield cli


@pytest.fixture
def released(cli: Cli) -> Cli:
    """web 1.3.0, then 1.4.0 released from prod to fake/web."""
    for version in ("1.3.0", "1.4.0"):
        assert cli("channel", "web", "prod", "--set", f"web@{version}", "--why", f"to {version}").code == 0
        assert cli("release", "web", "prod", "--to", "fake/web").code == 0
    return cli


def fits(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_a_channel_is_set_shown_and_used(cli: Cli) -> None:
    result = cli("channel", "web", "prod", "--set", "web@1.3.0")
    assert (result.code, result.out) == (0, f"web@prod → web@1.3.0 ({OLD.id})\n")
    cli("channel", "web", "prod", "--set", "web@1.4.0", "--why", "nginx CVE-2026-1")
    result = cli("channel", "web", "prod", tty=True)
    assert "nginx CVE" in result.out
    assert fits(cli("channels", tty=True).out.replace("\x1b[1m", "").replace("\x1b[0m", ""))
    shown = json.loads(cli("channel", "web", "prod", "--json").out)
    assert (shown["channel"]["image"], [event["action"] for event in shown["history"]]) == (NEW.id, ["set", "set"])
    assert cli("channel", "web", "prod", "--quiet").out == NEW.id + "\n"
    assert json.loads(cli("show", "web@prod", "--json").out)["channels"] == ["prod"]
    assert "CHANNELS" in cli("images").out
    assert [row["channels"] for row in json.loads(cli("images", "--name", "web", "--json").out)] == [["prod"], []]
    assert cli("rm", "web@prod", "--force").code == 7
    assert cli("channel", "web", "prod", "--unset").out == "web@prod does not exist any more\n"
    assert cli("channel", "web", "prod").code == 5
    assert cli("channels").err.startswith("no channels: ")


def test_a_protected_channel_says_who_protects_it(cli: Cli) -> None:
    cli("channel", "web", "prod", "--set", "web@1.3.0", "--protect")
    refused = cli("channel", "web", "prod", "--set", "web@1.4.0")
    assert (refused.code, "channel prod of web is protected by " in refused.err) == (7, True)
    assert cli("channel", "web", "prod", "--set", "web@1.4.0", "--force").code == 0
    assert ", protected by " in cli("channel", "web", "prod").out
    assert cli("channel", "web", "prod", "--unset", "--protect").code == 2


@pytest.mark.parametrize(
    ("argv", "exit_code", "facts"),
    [
        (
            ("channel", "web", "1.x", "--set", "web"),
            2,
            (
                "1.x",
                "[channel.name]",
            ),
        ),
        (
            ("channel", "web", "prod", "--set", "debian-13"),
            2,
            (
                "debian-13",
                "web",
                "[channel.other-image]",
            ),
        ),
        (
            ("channel", "web", "prod", "--set", "web@9.9.9"),
            5,
            (
                "web",
                "9.9.9",
                "[image.version-not-found]",
            ),
        ),
        (
            ("channel", "web", "prod", "--unset", "--protect"),
            2,
            (
                "--unset",
                "--protect",
                "[usage.conflicting-options]",
            ),
        ),
        (
            ("channel", "web", "prod"),
            5,
            (
                "'prod'",
                "[channel.not-found]",
            ),
        ),
        (
            ("revoke", "web@1.3.0"),
            2,
            (
                "--reason",
                "[usage.missing-argument]",
            ),
        ),
        (
            ("revoke", "web@1.3.0", "--undo"),
            5,
            (
                OLD.id,
                "[revocation.not-found]",
            ),
        ),
        (
            ("revoke", "web@1.3.0", "--undo", "--reason", "x"),
            2,
            (
                "--undo",
                "[usage.conflicting-options]",
            ),
        ),
        (
            ("revoke", "web@1.3.0", "--reason", "x", "--at", "tomorrow"),
            2,
            (
                "'tomorrow'",
                "[usage.bad-time]",
            ),
        ),
        (
            ("revoke", "web@1.3.0", "--reason", "x", "--in", "soon"),
            2,
            (
                "--in",
                "soon",
                "[usage.bad-time]",
            ),
        ),
        (
            ("revoke", "web@1.3.0", "--reason", "x", "--in", "3d", "--rollback-channels"),
            2,
            (
                "--rollback-channels",
                "[usage.conflicting-options]",
            ),
        ),
        (
            ("release", "web"),
            2,
            (
                "CHANNEL",
                "[usage.missing-argument]",
            ),
        ),
        (
            ("release", "web", "prod"),
            2,
            (
                "--to",
                "[usage.missing-argument]",
            ),
        ),
        (
            ("release", "web", "prod", "--resume"),
            2,
            (
                "--resume",
                "[usage.conflicting-options]",
            ),
        ),
        (
            ("release", "web", "--resume"),
            5,
            (
                "web",
                "[release.none-running]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web"),
            5,
            (
                "web",
                "'prod'",
                "[channel.not-found]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--min-healthy", "101"),
            2,
            (
                "101",
                "[usage.bad-percentage]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--max-healthy", "110"),
            2,
            (
                "110",
                "--min-healthy",
                "[usage.bad-percentage]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--checkpoints", "50,25"),
            2,
            (
                "50,25",
                "[usage.bad-checkpoints]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--checkpoints", "half"),
            2,
            (
                "half",
                "[usage.bad-checkpoints]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--checkpoint-delay", "5m"),
            2,
            (
                "--checkpoints",
                "[usage.needs-option]",
            ),
        ),
        (
            ("release", "web", "prod", "--to", "fake/web", "--warm-up", "soon"),
            2,
            (
                "--warm-up",
                "soon",
                "[usage.bad-time]",
            ),
        ),
        (
            ("rollback", "web"),
            5,
            (
                "web",
                "[release.never-released]",
            ),
        ),
        (
            ("rollback", "web", "last"),
            2,
            (
                "'last'",
                "[usage.bad-release]",
            ),
        ),
        (
            ("rollback", "web", "v9"),
            5,
            (
                "web",
                "v9",
                "[release.not-found]",
            ),
        ),
        (
            ("resolve", "web@1.4.0"),
            2,
            (
                "eu-west-1, us-east-1",
                "[usage.ambiguous-region]",
            ),
        ),
        (
            ("resolve", "web@1.4.0", "--region", "ap-south-1"),
            5,
            (
                "ap-south-1",
                "[image.no-ami-in-region]",
            ),
        ),
        (
            ("resolve", "debian-13"),
            5,
            (
                "debian-13@13.1.0",
                "[image.no-ami]",
            ),
        ),
        (("resolve",), 2, ("[usage.missing-argument]",)),
        (
            ("lifecycle", "wbe"),
            5,
            (
                "'wbe'",
                "'web'",
            ),
        ),
        (
            ("lifecycle", "web", "--apply"),
            2,
            (
                "--apply",
                "[usage.needs-option]",
            ),
        ),
        (
            ("lifecycle", "web", "--delete-snapshots"),
            2,
            (
                "--deregister",
                "[usage.needs-option]",
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_told(cli: Cli, argv: tuple[str, ...], exit_code: int, facts: tuple[str, ...]) -> None:
    result = cli(*argv)
    assert (result.code, result.out) == (exit_code, "")
    assert all(fact in result.err for fact in facts), result.err


def test_revoking(cli: Cli) -> None:
    cli("channel", "web", "prod", "--set", "web@1.4.0")
    result = cli("revoke", "debian-13@13.1.0", "--reason", "CVE-2026-1", "--descendants")
    assert result.code == 0
    assert result.out.startswith(f"revoked debian-13 13.1.0 ({BASE.id}) and 2 descendants with effect from 2")
    assert "web@prod still points to it" in result.err
    assert cli("images").out.count(" revoked ") == 3
    assert json.loads(cli("images", "--name", "web", "--json").out)[0]["revoked"]["inherited_from"] == BASE.id
    assert "CVE-2026-1" in cli("show", "web@1.4.0").out
    assert cli("history", "web@1.4.0").out.count("revoked") == 2
    assert "1.4.0 (revoked)" in cli("channels").out
    for argv in (("channel", "web", "new", "--set", "web@1.3.0"), ("release", "web", "prod", "--to", "fake/web"), ("resolve", "web@prod")):
        refused = cli(*argv)
        assert (refused.code, "revoked and cannot be used" in refused.err) == (2, True)
    assert cli("revoke", "debian-13@13.1.0", "--undo").code == 0
    assert cli("channel", "web", "new", "--set", "web@1.3.0").code == 0


def test_revoking_later(cli: Cli) -> None:
    assert cli("revoke", "web@1.3.0", "--reason", "end of life", "--in", "3d").code == 0
    assert cli("resolve", "web@1.3.0", "--kind", "id").out == OLD.id + "\n"
    for at, effective in (("2126-01-01", ""), ("2026-01-01", "2026-01-01T00:00:00Z"), ("2126-01-01", "2026-01-01T00:00:00Z")):
        found = json.loads(cli("revoke", "web@1.3.0", "--reason", "x", "--at", at, "--json").out)["revocation"]
        assert found["effective"].startswith(effective)
        assert found["effective"] < "2126", "never later than it was"


def test_releasing_listing_and_rolling_back(released: Cli) -> None:
    assert fake_target.WORLD["web"].image == "ami-4-eu-west-1"
    back = released("rollback", "web", "--why", "errors")
    assert (back.code, back.out) == (0, "web@1.3.0 is released to fake/web: release v3 of web\n")
    assert "bake channel web prod --set web@1.3.0" in back.err
    assert fake_target.WORLD["web"].image == "ami-3-eu-west-1"
    listed = released("releases", "web", tty=True).out
    assert "rollback to v1" in listed
    assert fits(listed.replace("\x1b[1m", "").replace("\x1b[0m", ""))
    found = json.loads(released("releases", "web", "--json").out)
    assert [(one["release"], one["version"], one["status"], one["nobody_waits"]) for one in found] == [
        ("v3", "1.3.0", "succeeded", False), ("v2", "1.4.0", "succeeded", False), ("v1", "1.3.0", "succeeded", False),
    ]  # fmt: skip
    assert released("releases", "--quiet").out.splitlines() == ["web v3", "web v2", "web v1"]
    again = released("release", "web", "prod", "--json")
    assert json.loads(again.out)["target"] == "fake/web", "as the last release of that channel"
    assert "refresh" in again.err
    assert "released" in released("show", "web@1.4.0").out


def test_a_release_that_fails_ends_with_3(released: Cli) -> None:
    fake_target.WORLD["web"].wait_error = broken("2 instances are unhealthy")
    result = released("release", "web", "prod")
    assert (result.code, result.out) == (3, "")
    assert "release v3 of web to fake/web " in result.err
    assert "2 instances are unhealthy" in released("releases").out


def test_a_release_that_nobody_waits_for(released: Cli) -> None:
    result = released("release", "web", "prod", "--no-wait")
    assert (result.code, result.out) == (0, "web@1.4.0 is being released to fake/web: release v3 of web\n")
    assert "v3 of web" in released("releases").err
    assert released("release", "web", "prod").code == 7
    assert released("release", "web", "--resume").out == "web@1.4.0 is released to fake/web: release v3 of web\n"


def test_resolving_for_scripts(cli: Cli) -> None:
    assert cli("resolve", "web@1.4.0", "--region", "eu-west-1").out == "ami-4-eu-west-1\n"
    assert cli("resolve", "web", "--kind", "digest").out == NEW.digest + "\n"
    cli.env["AWS_REGION"] = "us-east-1"
    assert cli("resolve", "web").out == "ami-4-us-east-1\n"


def test_resolving_never_prints_another_regions_ami(cli: Cli) -> None:
    with cli.baker as baker:
        for number, created in ((1, "2026-11-02T00:00:00Z"), (2, "2026-11-01T00:00:00Z")):
            baker.catalog.publish(Publication(BASE.id, "ami", f"ami-base-{number}", "eu-west-1", "123456789012", created=created))
    assert cli("resolve", "debian-13").out == "ami-base-1\n", "the newest of the only region"
    cli.env["AWS_REGION"] = "us-east-1"
    refused = cli("resolve", "debian-13")
    assert (refused.code, refused.out, "no AMI in us-east-1" in refused.err) == (5, "", True)


def test_resolving_for_terraform(cli: Cli) -> None:
    result = cli("resolve", "--external", stdin='{"image": "web@^1.3", "region": "eu-west-1"}')
    assert json.loads(result.out) == {
        "value": "ami-4-eu-west-1", "ami": "ami-4-eu-west-1", "image": NEW.id, "name": "web", "version": "1.4.0", "digest": NEW.digest,
        "region": "eu-west-1", "account": "123456789012",
    }  # fmt: skip
    for query, fact in (("", "JSON"), ('{"image": 1}', "strings"), ('{"imgae": "web"}', "'imgae'"), ("[]", "object"),
                        ('{"image": "web", "kind": "arn"}', "'arn'")):  # fmt: skip
        refused = cli("resolve", "--external", stdin=query)
        assert (refused.code, refused.out, fact in refused.err, "[usage.bad-query]" in refused.err) == (2, "", True, True)
