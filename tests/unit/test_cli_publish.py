"""`bake publish`: what it asks for and what it prints; the targets that it can name."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from baker.api import Baker
from baker.catalog.records import Publication
from baker.core.errors import NotFoundError, UsageError, VerifyError
from baker.core.events import Progress, StageFinished, StageStarted
from baker.core.home import Home
from baker.publish import registry
from baker.publish.base import Published, PublishOptions
from tests.support.fake_app import Cli, a_build, an_image, fill
from tests.support.plugins import on_path

AMI = Publication(
    image=an_image().id,
    kind="ami",
    reference="ami-0123456789abcdef0",
    region="eu-central-1",
    account="123456789012",
    snapshots=("snap-0123456789abcdef0",),
    details={"verified": True},
    created="2026-11-25T12:00:00Z",
)
COPY = replace(AMI, reference="ami-0fedcba9876543210", region="eu-west-1", details={"verified": True, "copied_from": AMI.reference})
PLUGIN = '''
from baker.catalog.records import Publication
from baker.publish.base import Published


class Shelf:
    """Puts images on a shelf."""

    kind = "shelf"

    def publish(self, request):
        request.report.progress("shelf", 1, 2)
        image, disk = request.baked.image, request.baked.disk
        made = Publication(image.id, "shelf", f"shelf:{image.name}", details={"disk": disk.path.name})
        request.publications.add(made)
        return (Published(made),)

    def reclaim(self, kind, details):
        return kind == "shelf:place"
'''


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    found = Cli(tmp_path)
    with found.baker as bake:
        fill(bake, an_image())
    found.script.published = [Published(AMI, sent=412 << 20, seconds=192.0), Published(COPY, seconds=280.0)]
    return found


def test_a_line_for_each_place(cli: Cli) -> None:
    assert cli("publish", "web", "--to", "ami").out.splitlines() == [
        "ami-0123456789abcdef0 in eu-central-1: sent 412 MiB, verified, 3m12s",
        "ami-0fedcba9876543210 in eu-west-1: copied from ami-0123456789abcdef0, verified, 4m40s",
    ]


def test_quiet_is_the_references(cli: Cli) -> None:
    assert cli("publish", "-q", "web", "--to", "ami").out.split() == [AMI.reference, COPY.reference]


def test_what_is_published_already(cli: Cli) -> None:
    cli.script.published = [Published(AMI, unchanged=True)]
    assert cli("publish", "web", "--to", "ami").out == "ami-0123456789abcdef0 in eu-central-1: published already\n"


def test_json(cli: Cli) -> None:
    first, second = json.loads(cli("publish", "web", "--to", "ami", "--json").out)
    assert (first["reference"], first["region"], first["sent"], first["unchanged"]) == (AMI.reference, "eu-central-1", 412 << 20, False)
    assert second["details"]["copied_from"] == AMI.reference


def test_what_is_wished_for(cli: Cli) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    where = ("--region", "eu-central-1,eu-west-1", "--region", "us-east-1", "--subnet", "subnet-1", "--instance-type", "t3.small")
    what = ("--name", "shop", "--tag", "a=b=c", "--tag", "d=", "--kms-key", key, "--boot-mode", "uefi")
    cli("publish", "web@1.4.0", "--to", "ami", *where, *what, "--no-verify", "--force", "--profile", "prod")
    assert cli.script.asked["to"] == "ami"
    assert cli.script.asked["options"] == PublishOptions(
        regions=("eu-central-1", "eu-west-1", "us-east-1"),
        name="shop",
        tags={"a": "b=c", "d": ""},
        kms_keys=(key,),
        boot_mode="uefi",
        verify=False,
        force=True,
        profile="prod",
        instance_type="t3.small",
        subnet="subnet-1",
    )


@pytest.mark.parametrize("argv", [("--tag", "x", "--to", "ami"), (), ("--to", "ami", "--boot-mode", "bios")])
def test_wrong_command_lines(cli: Cli, argv: tuple[str, ...]) -> None:
    assert cli("publish", "web", *argv).code == 2


def test_progress_goes_to_the_error_stream(cli: Cli) -> None:
    cli.script.events = [
        StageStarted(build="b", stage="upload", detail="eu-central-1", at=0.0),
        Progress(build="b", label="upload", done=1 << 20, total=4 << 20, at=0.0),
        Progress(build="b", label="upload", done=2 << 20, total=4 << 20, at=20.0),
        StageFinished(build="b", stage="upload", seconds=40.0, at=40.0),
    ]
    shown = cli("publish", "web", "--to", "ami")
    assert "upload: 2.0 MiB of 4.0 MiB (50%)" in shown.err
    assert "upload done after 40s" in shown.err
    assert "upload" not in shown.out


def test_an_image_that_does_not_boot(cli: Cli) -> None:
    cli.script.error = VerifyError("ami-1 does not come up")
    assert cli("publish", "web", "--to", "ami").code == 4


def test_an_image_that_is_not_there(cli: Cli) -> None:
    assert cli("publish", "nothing", "--to", "ami").code == 5


# --- targets -------------------------------------------------------------------------------------------------------------


def test_a_target_that_nobody_has() -> None:
    with pytest.raises(UsageError, match="no publication target 'gcp'") as error:
        registry.get("gcp")
    assert error.value.hint == "there are: ami"


@pytest.fixture
def plugin(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Installs a package with a target; the directory."""

    def install(text: str = PLUGIN) -> Path:
        site = tmp_path / "site"
        module = f"bake_shelf_{secrets.token_hex(4)}"  # Python remembers modules by name
        info = site / "bake_shelf-1.0.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bake-shelf\nVersion: 1.0.0\n")
        (info / "entry_points.txt").write_text(f"[baker.publish_targets]\nshelf = {module}:Shelf\n")
        return site

    return install


def test_a_target_of_a_plugin(tmp_path: Path, plugin) -> None:  # type: ignore[no-untyped-def]
    with on_path(plugin()), Baker(Home.from_environment({"BAKE_HOME": str(tmp_path / "home")}), env={}) as bake:
        assert registry.kinds() == ("ami", "shelf")
        blob = bake.store.add_bytes(b"disk")
        fill(bake, an_image(chain=(blob,)))
        (published,) = bake.publish("web", "shelf", PublishOptions())
        assert published.publication.reference == "shelf:web"
        assert [one.reference for one in bake.catalog.publications(an_image().id)] == ["shelf:web"]
        assert [target.reclaim("shelf:place", {}) for target in registry.all_for_sweep()] == [False, True]


@pytest.mark.parametrize("text", ["raise RuntimeError('no licence')", "", "class Shelf: kind = 'shelf'"])
def test_a_broken_plugin(plugin, text: str) -> None:  # type: ignore[no-untyped-def]
    with on_path(plugin(text)), pytest.raises(UsageError, match="'shelf'"):
        registry.get("shelf")


def test_an_image_without_a_disk_here(tmp_path: Path) -> None:
    with Baker(Home.from_environment({"BAKE_HOME": str(tmp_path / "home")}), env={}) as bake:
        image = an_image(chain=(), builder="ec2")
        bake.catalog.register(a_build(image), image)
        with pytest.raises(NotFoundError, match=r"web@1\.4\.0 .* ec2") as missing:
            bake.publish("web", "ami", PublishOptions())
    assert missing.value.code == "image.no-local-disk"
