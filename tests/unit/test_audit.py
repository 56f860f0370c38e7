"""`bake audit`: the whole story of an image, told three ways, and a verdict that notices what was tampered with."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from baker.artifacts import changes, codecs
from baker.artifacts.changes import Change
from baker.catalog.catalog import Catalog
from baker.catalog.records import BuildRecord, ImageRecord, Publication, Rebuild, Release, Revocation
from baker.core.model import Disk, FileEntry
from baker.disks import qemuimg
from baker.disks.raw import raw_digest
from baker.trust.attest.signing import attest
from baker.trust.audit.checks import Check, Subject
from baker.trust.audit.html import page
from baker.trust.audit.story import Story
from tests.support.disks import create_qcow2
from tests.support.fake_app import Cli, FakeBaker, a_build, an_image

BODY = b"<html>a package</html>"
EVIL = '<script>alert("x")</script>'
AT = "2026-11-22T21:00:00Z"


def entry(path: str, content: str = "0" * 64) -> FileEntry:
    return FileEntry(path, 0o100644, 0, 0, 5, content)


def a_disk(path: Path, backing: Disk | None = None, *, fill: int) -> Disk:
    """A small qcow2 with some bytes of its own."""
    disk = create_qcow2(path, 1 << 20) if backing is None else qemuimg.create_overlay(backing, path)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {fill} {fill * 65536} 65536", path], check=True, capture_output=True)
    return disk


def registered(baker: FakeBaker, image: ImageRecord, disk: Disk, build: Callable[[ImageRecord], BuildRecord]) -> ImageRecord:
    """Put a disk into the store and an image of it into the catalog."""
    parent = baker.catalog.image(image.parent) if image.parent else None
    digest = raw_digest(disk)
    delta = baker.store.add_disk(disk, parent.chain[0] if parent else None)
    image = replace(image, digest=digest, virtual_size=1 << 20, chain=(delta, *(parent.chain if parent else ())))
    baker.catalog.register(
        build(image), image, [Publication(image.id, "ami", "ami-0abc", "eu-west-1", "123", created=AT)] if parent else []
    )
    return image


def proper(build: BuildRecord) -> BuildRecord:
    """A build whose template has the digest that it says it has."""
    return replace(build, template_digest="sha256:" + hashlib.sha256(build.template_text.encode()).hexdigest())


def fetched(digest: str) -> bytes:
    lines = [
        {"method": "GET", "url": "http://deb.example/pool/nginx.deb", "status": 200, "headers": [["ETag", "x"]], "digest": digest,
         "size": len(BODY), "at": 1.0, "step": 1},
        {"method": "GET", "url": "http://deb.example/secret", "status": 200, "headers": [], "digest": "", "size": 3, "at": 2.0,
         "why": "it was asked for with credentials"},
    ]  # fmt: skip
    return codecs.pack_lines(json.dumps(line) for line in lines)


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with debian-13 13.1.0 and, on it, web 1.4.0 with every kind of thing that can be on record."""
    directory = tmp_path_factory.mktemp("told")
    with Cli(directory / "home").baker as baker:
        store, catalog = baker.store, baker.catalog
        base = an_image("debian-13", "13.1.0", 1, labels={})
        log = {"log": store.add_bytes(codecs.pack_text("log of the base\n"))}
        base = registered(baker, base, a_disk(directory / "base.qcow2", fill=1), lambda image: proper(a_build(image, evidence=log)))
        web = an_image("web", "1.4.0", 2, parent=base.id, description=EVIL)

        def build(image: ImageRecord) -> BuildRecord:
            body = store.add_bytes(BODY)
            touched = [
                Change("/etc/nginx/nginx.conf", "added", 1, None, entry("/etc/nginx/nginx.conf")),
                *(Change(f"/usr/share/doc/{number}", "added", 1, None, entry(f"/usr/share/doc/{number}")) for number in range(9)),
                Change("/etc/ssh/sshd_config", "changed", 2, entry("/etc/ssh/sshd_config"), entry("/etc/ssh/sshd_config", "1" * 64)),
                Change("/var/log/apt.log", "removed", None, entry("/var/log/apt.log"), None),
                Change(f"/srv/{EVIL}", "added", 2, None, entry(f"/srv/{EVIL}")),
            ]
            found = {
                "log": store.add_bytes(codecs.pack_text("log\n")),
                "changes": store.add_bytes(changes.pack(touched)),
                "fetches": store.add_bytes(fetched(body)),
                f"body:{body.removeprefix('sha256:')}": body,
            }
            source = {"kind": "image", "title": "debian-13@13.1.0", "digest": base.digest, "pins": {"image": base.id}}
            return proper(a_build(image, evidence=found, source=source, inputs={"files/index.html": "7" * 64}))

        backing = Disk(store.path(base.chain[0]), "qcow2", 1 << 20)
        web = registered(baker, web, a_disk(directory / "web.qcow2", backing, fill=2), build)
        catalog.channels.set("web", "prod", web.id, who="ann@desk", at=AT, why="launch")
        release = catalog.releases.begin(Release("web", 0, web.id, "prod", "asg/web-prod", "running", "ann@desk", AT))
        catalog.releases.finish(release, "succeeded", at=AT)
        baker.trust.keys.create()
        attest(web, baker.trust)
        catalog.rebuilds.add(Rebuild(web.id, 3, web.digest, store.add_bytes(b"report"), {"name": "other"}, "bob", AT))
    return directory / "home"


@pytest.fixture
def cli(tmp_path: Path, told: Path) -> Cli:
    shutil.copytree(told, tmp_path / "home")
    return Cli(tmp_path / "home")


def test_the_whole_story_is_on_the_page(cli: Cli) -> None:
    result = cli("audit", "web", columns=200)
    assert result.code == 0, result.out
    for text in (
        "web 1.4.0", "debian-13 13.1.0", "someone@builder", "c0ffee", "debian-13@13.1.0", "files/index.html", "sha256:" + "7" * 64,
        "1. packages (shell) 1m01s", "files: 10 added", "+ /etc/nginx/nginx.conf", "and 5 more", "~ /etc/ssh/sshd_config",
        "sealing, and other changes outside of steps", "- /var/log/apt.log", "http://deb.example", "the bodies of 1 response were not kept",
        "test_web.py::test_nginx", "web@prod", "ami-0abc eu-west-1", "release v1", "asg/web-prod", "signed https://slsa.dev/provenance/v1",
        "L3, the same disk", "in order: ",
    ):  # fmt: skip
        assert text in result.out, f"{text} is not in\n{result.out}"
    assert "body:" not in result.out
    assert "(secret)" in result.out


def test_json_has_every_path_and_the_verdict(cli: Cli) -> None:
    found = json.loads(cli("audit", "web", "--json").out)
    assert found["verdict"]["ok"] is True
    assert [each["image"]["name"] for each in found["line"]] == ["web", "debian-13"]
    assert found["steps"][0]["counts"] == {"added": 10, "changed": 0, "removed": 0}
    assert len(found["steps"][0]["changes"]) == 10
    assert found["steps"][2]["step"] is None
    assert found["steps"][2]["changes"][0]["path"] == "/var/log/apt.log"
    assert {each["kind"] for each in found["inputs"]} == {"template", "source", "file", "fetched"}
    assert all(each["digest"].startswith("sha256:") for each in found["inputs"] if not each["note"] or each["kind"] != "fetched")
    assert found["rebuilds"][0]["level"] == 3
    assert not [name for name in found["line"][0]["build"]["evidence"] if name.startswith("body:")]
    assert {check["status"] for check in found["checks"]} == {"ok"}


class Page(HTMLParser):
    """What a browser would load or run of a page, and which elements are open at its end."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.ids |= {value or ""} if name == "id" else set()
            if name in ("src", "href", "xlink:href"):
                (self.targets.add if (value or "").startswith("#") else self.loads.append)(value or "")
            assert not name.startswith("on"), f"{tag} has a script in {name}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_html_page_needs_nothing_else_and_runs_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("audit", "web", "--html", tmp_path / "web.html")
    assert result.code == 0
    assert "in order" in result.out
    text = (tmp_path / "web.html").read_text()
    found = Page(text)
    assert found.open == []
    assert found.loads == []
    assert "script" not in found.tags
    assert {target.removeprefix("#") for target in found.targets} <= found.ids
    assert "&lt;script&gt;alert" in text
    for wanted in ("/etc/nginx/nginx.conf", "nginx.deb", "prefers-color-scheme: dark", "asg/web-prod", "ami-0abc", "In order."):
        assert wanted in text


def test_the_lineage_is_a_picture_with_the_root_on_top(cli: Cli, tmp_path: Path) -> None:
    cli("audit", "web", "--html", tmp_path / "web.html")
    text = (tmp_path / "web.html").read_text()
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    tops = {box.findtext("text"): float(box.find("rect").get("y", "")) for box in svg.findall("g")}  # type: ignore[union-attr]
    assert tops["debian trixie (debootstrap)"] < tops["debian-13 13.1.0"] < tops["web 1.4.0"]
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    for rect in svg.iter("rect"):
        x, y, wide, high = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + wide <= width
        assert y + high <= height
    assert any("channel prod" in text.text for text in svg.iter("text") if text.text)


def failed(cli: Cli, reference: str = "web") -> dict[str, str]:
    """The checks that fail; the command's exit code says so too."""
    result = cli("audit", reference, "--json")
    found = {check["name"]: check["detail"] for check in json.loads(result.out)["checks"] if check["status"] == "failed"}
    assert result.code == (4 if found else 0)
    return found


def overwrite(path: Path) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_changed_disk_is_found(cli: Cli) -> None:
    with cli.baker as baker:
        overwrite(baker.store.path(baker.catalog.resolve("web").chain[0]))
    assert list(failed(cli)) == ["disk blobs"]
    assert "was changed" in failed(cli)["disk blobs"]


def test_a_changed_disk_of_the_base_is_found(cli: Cli) -> None:
    with cli.baker as baker:
        overwrite(baker.store.path(baker.catalog.resolve("debian-13").chain[0]))
    assert "disk 1 (sha256:" in failed(cli)["disk blobs"]


@pytest.mark.parametrize(("name", "check"), [("changes", "evidence"), ("fetches", "evidence"), ("body:", "downloads")])
def test_changed_evidence_is_named_and_the_story_is_still_told(cli: Cli, name: str, check: str) -> None:
    with cli.baker as baker:
        build = baker.catalog.build_of(baker.catalog.resolve("web"))
        overwrite(baker.store.path(next(digest for each, digest in build.evidence.items() if each.startswith(name))))
    assert name in failed(cli)[check]
    assert "something is wrong" in cli("audit", "web").out


def test_a_changed_attestation_is_found(cli: Cli) -> None:
    with cli.baker as baker:
        overwrite(baker.store.path(baker.catalog.proofs.attestations(baker.catalog.resolve("web").id)[0].digest))
    assert "attestation (sha256:" in failed(cli)["attestations and rebuilds"]


def test_evidence_that_is_gone_is_named(cli: Cli) -> None:
    with cli.baker as baker:
        baker.store.delete(baker.catalog.build_of(baker.catalog.resolve("web")).evidence["changes"])
    assert "changes (sha256:" in failed(cli)["evidence"]
    result = cli("audit", "web")
    assert "cannot be read" in result.out
    assert "files:" not in result.out, "no count where nothing is known"


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE images SET digest = 'sha256:" + "1" * 64 + "' WHERE name = 'web'", "disk"),
        ("UPDATE images SET digest = 'sha256:" + "1" * 64 + "' WHERE name = 'debian-13'", "lineage"),
        ("UPDATE builds SET template_text = 'name: other' WHERE template_name = 'web'", "template"),
        ("UPDATE builds SET template_text = 'name: other' WHERE template_name = 'debian-13'", "template"),
    ],
)
def test_a_changed_record_is_found(cli: Cli, statement: str, check: str) -> None:
    with sqlite3.connect(cli.baker.home.catalog) as file:
        file.execute(statement)
    assert check in failed(cli)


def test_a_revoked_base_is_found(cli: Cli) -> None:
    with cli.baker as baker:
        base = baker.catalog.resolve("debian-13")
        baker.catalog.revocations.add(Revocation(base.id, "CVE-2026-1", "eve", AT, AT, descendants=True))
    assert "CVE-2026-1" in failed(cli)["revocation"]
    assert "CVE-2026-1" in cli("audit", "web").out


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("UPDATE builds SET who = 'mallory' WHERE template_name = 'web'", "records"),
        ("UPDATE images SET labels = '{}' WHERE name = 'web'", "records"),
        ("DELETE FROM journal WHERE serial = 2", "chain of records"),
        ("UPDATE journal SET at = '' WHERE serial = 3", "chain of records"),
        ("UPDATE attestations SET keyid = previous FROM (SELECT hash AS previous FROM journal LIMIT 1)", "signatures"),
    ],
)
def test_what_somebody_did_to_the_database_is_found(cli: Cli, change: str, check: str) -> None:
    database = sqlite3.connect(cli.home / "data/catalog.sqlite")
    for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {trigger}")
    assert database.execute(change).rowcount == 1
    database.commit()
    database.close()
    assert check in failed(cli)


def test_a_signature_of_a_key_that_is_not_trusted_any_more_is_told(cli: Cli) -> None:
    shutil.rmtree(cli.home / "data/keys")
    assert "the key is not trusted here" in failed(cli)["signatures"]


def test_checks_of_others_count(cli: Cli) -> None:
    def tickets(subject: Subject) -> list[Check]:
        return [Check("tickets", "failed", f"{subject.image.name} has no ticket")]

    with cli.baker as baker:
        story: Story = baker.audit("web", [tickets])
    assert [check.name for check in story.failed] == ["tickets"]
    assert "has no ticket" in page(story)


def test_an_image_of_which_little_is_known_has_a_story_too(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    image = an_image(chain=(), builder="ec2")
    with cli.baker as baker:
        baker.catalog.register(proper(a_build(image, tests=(), verify="skipped", steps=(), git_commit="")), image)
    result = cli("audit", "web", "--html", tmp_path / "web.html")
    assert result.code == 0, result.out
    assert "nothing to check for disk" in result.out
    assert "not in git" in (tmp_path / "web.html").read_text()


def test_a_page_that_cannot_be_written_is_an_error_with_its_place(cli: Cli, tmp_path: Path) -> None:
    result = cli("audit", "web", "--html", tmp_path / "nowhere" / "web.html")
    assert result.code == 6
    assert "nowhere" in result.err


def test_proofs_are_empty_where_there_are_none(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    assert catalog.proofs.attestations("a") == catalog.proofs.rebuilds("a") == catalog.proofs.revocations(["a"]) == []
