"""`bake outdated`: what is newer than what an image on record is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from baker.api import Baker
from baker.artifacts.ansible_content import pack
from baker.artifacts.codecs import pack_lines, pack_packages
from baker.core.errors import NotFoundError
from baker.core.model import AnsibleContent, Package, PackageList
from baker.core.process import run
from baker.lockfile.aptsources import lines, stanzas
from baker.lockfile.candidates import Listing
from baker.lockfile.outdated import Examined
from baker.provision.galaxy import galaxy_server
from tests.support.archive import MIRROR, Archive
from tests.support.fake_app import Cli, a_build, an_image, fill

CASES = Path(__file__).resolve().parent.parent / "cases" / "outdated"


def packages(lines: Sequence[str]) -> PackageList:
    return PackageList(tuple(Package(*line.split()) for line in lines))


def register(baker: Baker, lines: Sequence[str], archive: Archive, read: Sequence[str]) -> None:
    """An image with these packages, whose build read these suites of the archive (those it had)."""
    store = baker.store
    answers = [{"method": "GET", "url": url, "status": 200, "digest": store.add_bytes(data)} for url, data in archive.files.items()]
    answers += [
        {"method": "GET", "url": f"{MIRROR}/{suite}/{path}", "status": 200, "digest": "sha256:" + "0" * 64}
        for suite in read
        if suite not in archive.suites
        for path in ("InRelease", "main/binary-amd64/Packages.xz")
    ]
    evidence = {
        "packages_after": store.add_bytes(pack_packages(packages(lines))),
        "fetches": store.add_bytes(pack_lines(map(json.dumps, answers))),
    }
    image = an_image()
    baker.catalog.register(a_build(image, evidence=evidence), image)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_packages(case: Path, tmp_path: Path) -> None:
    stated = yaml.safe_load(case.read_text())
    quirks = {"not_automatic": stated.get("not_automatic", False)}
    now = Archive(stated["now"], spoilt=stated.get("spoilt", False), **quirks)
    with Cli(tmp_path / "home").baker as baker:
        register(baker, stated["installed"], Archive(stated["then"], **quirks), stated["read"])
        (found,) = baker.outdated(["web"], now)
    assert [[row.what, row.name, row.before, row.after] for row in found.newer] == stated["expect"]
    unknown = [each for each in found.unknown if not each.startswith("its files")]
    assert len(unknown) == len(stated.get("unknown", []))
    assert all(text in each for text, each in zip(stated.get("unknown", []), unknown, strict=True))
    assert now.asked == stated.get("asked", now.asked)


def look(baker: Baker, name: str = "web") -> Examined:
    return baker.outdated([name], Archive({}))[0]


def on_base(reference: str, version: str = "13.1.0") -> dict[str, object]:
    pins = {"image": "debian-13", "version": version, "id": "a00000000002", "digest": "sha256:" + "e" * 64}
    return {"kind": "image", "title": f"debian-13@{version}", "digest": "sha256:" + "e" * 64, "spec": {"image": reference}, "pins": pins}


@pytest.mark.parametrize(
    ("reference", "newest", "after", "note"),
    [
        ("debian-13@^13.1", "13.2.0", "13.2.0", "debian-13@^13.1"),
        ("debian-13@^13.1", "14.0.0", "14.0.0", "debian-13@^13.1 does not resolve to it"),
        ("debian-13@stable", "13.2.0", "13.2.0", "debian-13@stable"),
        ("debian-13@^13.1", "13.1.0", "13.1.0 (a00000000003)", "debian-13@^13.1"),
    ],
    ids=["in its range", "beyond its range", "in its channel", "the same version made anew"],
)
def test_a_newer_base(tmp_path: Path, reference: str, newest: str, after: str, note: str) -> None:
    with Cli(tmp_path / "home").baker as baker:
        base, later, web = an_image("debian-13", "13.1.0", 2), an_image("debian-13", newest, 3), an_image("web", "1.4.0", 1)
        fill(baker, base)
        fill(baker, web, change=lambda build: replace(build, source=on_base(reference)))
        if "stable" in reference:
            baker.catalog.channels.set("debian-13", "stable", base.id, who="me", at="2026-11-22T20:00:00Z")
        assert [row for row in look(baker).newer if row.what == "base"] == []
        fill(baker, later)
        if "stable" in reference:
            baker.catalog.channels.set("debian-13", "stable", later.id, who="me", at="2026-11-22T20:00:00Z")
        (row,) = look(baker).newer
    assert (row.what, row.name, row.before, row.after, row.note) == ("base", "debian-13", "13.1.0", after, note)


def test_files_that_have_changed_are_named(tmp_path: Path) -> None:
    from baker.core.digests import file_digest
    from baker.plan.plan import digest_files

    template, files = tmp_path / "web.yaml", tmp_path / "files"
    files.mkdir()
    template.write_text("schema: 1\n")
    for name in ("same", "other", "gone"):
        (files / name).write_text(name)
    inputs = {str(template): file_digest(template)} | {str(tmp_path / name): digest for name, digest in digest_files([files], tmp_path)}
    with Cli(tmp_path / "home").baker as baker:
        fill(baker, an_image(), change=lambda build: replace(build, template_path=str(template), inputs=inputs))
        assert look(baker).newer == ()
        template.write_text("schema: 1\nname: web\n")
        (files / "other").write_text("changed")
        (files / "gone").unlink()
        (files / "new").write_text("new")
        found = {(row.what, Path(row.name).name, bool(row.before), bool(row.after)) for row in look(baker).newer}
    assert found == {
        ("template", "web.yaml", True, True),
        ("file", "other", True, True),
        ("file", "gone", True, False),
        ("file", "new", False, True),
    }


def test_a_branch_that_has_gone_on_and_a_newer_collection(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        argv = ["git", "-C", str(tmp_path / "role"), "-c", "user.name=x", "-c", "user.email=x@example.org", *words]
        return run(argv).stdout.strip()

    (tmp_path / "role").mkdir()
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    git("tag", "-a", "-m", "first", "v1")
    first, source = git("rev-parse", "HEAD"), str(tmp_path / "role")
    git("commit", "-q", "--allow-empty", "-m", "two")
    digest = "sha256:" + "1" * 64
    brought = [
        AnsibleContent("role", "moving", "main", digest, source, "main", first),
        AnsibleContent("role", "fixed", "v1", digest, source, "v1", first),
        AnsibleContent("collection", "community.general", "9.0.0", digest),
    ]
    server = galaxy_server() + "/api/v3/plugin/ansible/content/published/collections/index/community/general/"
    answers = Archive({})
    answers.files[server] = json.dumps({"highest_version": {"version": "10.1.0"}}).encode()
    with Cli(tmp_path / "home").baker as baker:
        evidence = {"brought": baker.store.add_bytes(pack(brought))}
        fill(baker, an_image(), change=lambda build: replace(build, evidence=evidence))
        (found,) = baker.outdated([], answers)
    assert {(row.what, row.name, row.before, row.after) for row in found.newer} == {
        ("role", "moving", first, git("rev-parse", "HEAD")),
        ("collection", "community.general", "9.0.0", "10.1.0"),
    }


def test_the_command_says_what_and_ends_well_unless_it_is_asked_to_fail(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    assert "bake build" in cli("outdated").err
    with cli.baker as baker:
        fill(baker, an_image("debian-13", "13.1.0", 2), an_image("debian-13", "13.2.0", 3))
        fill(baker, an_image(), change=lambda build: replace(build, source=on_base("debian-13@^13.1")))
    result = cli("outdated", "web")
    assert result.code == 0 and "13.2.0" in result.out and "its packages" in result.err
    assert cli("outdated", "web", "--exit-code").code == 1
    assert cli("--quiet", "outdated").out == "web@1.4.0\n"
    (report,) = json.loads(cli("outdated", "web", "--json").out)
    assert report["name"] == "web" and report["newer"][0]["after"] == "13.2.0" and report["unknown"]
    assert cli("outdated", "nobody").code == NotFoundError.exit_code


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (lines, "# deb http://no/ x main\ndeb [signed-by=/k.gpg] http://mirror one main contrib # why\ndeb-src http://mirror one main\n"),
        (
            stanzas,
            "# a remark\nTypes: deb deb-src\nURIs: http://mirror/\nSuites: one\nComponents: main\n contrib\n\n"
            "Types: deb\nURIs: http://off\nSuites: two\nComponents: main\nEnabled: no\n",
        ),
        (lines, "deb http://mirror one main contrib\ndeb http://flat ./\ndeb cdrom:[x]/ one main\n"),
    ],
)
def test_where_an_image_looks_for_packages(read: Callable[[str, str], Iterator[Listing]], text: str) -> None:
    release = "http://mirror/dists/one/InRelease"
    assert list(read(text, "amd64")) == [Listing(release, f"{component}/binary-amd64/Packages") for component in ("main", "contrib")]
