"""The lock of a template: what `bake lock` writes, and what a build that is held to it says."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from baker.artifacts.codecs import pack_lines, pack_packages
from baker.build.recipe import Outcome
from baker.catalog.records import BuildRecord
from baker.core import host_facts
from baker.core.errors import LockError
from baker.core.events import Memory, Message, StepStarted
from baker.core.model import Package, PackageList
from baker.core.process import run
from baker.disks import qemuimg
from baker.lockfile.changes import changes
from baker.lockfile.check import package_problems
from baker.lockfile.model import Lock, load_lock
from baker.lockfile.write import Built, make_lock, write_lock
from baker.plan.requests import BuildResult
from baker.provision.galaxy import installed
from baker.template.epoch import lock_path
from baker.template.load import load
from baker.template.model import Template
from tests.support.disks import create_qcow2, disk_of, write_tree
from tests.support.fake_app import Cli, a_build, a_result, an_image
from tests.support.workshop import Workshop, open_workshop

CASES = Path(__file__).resolve().parent.parent / "cases" / "locks"
TOOLS = {"ssh": "OpenSSH_9.2"}


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as made:
        (made.directory / "motd").write_text("Hello\n")
        yield made


STEPS = ("shell: step-1", "file: {source: motd, destination: /etc/motd}")


def build(workshop: Workshop, *steps: str, **options: object) -> Outcome:
    return workshop.bake(*(steps or STEPS), **options)


def lock_of(workshop: Workshop) -> Lock:
    """The lock of the last image, in its place."""
    template = workshop.template(*STEPS)
    image = workshop.catalog.images("web")[0]
    made = make_lock([Built(template, workshop.catalog.build_of(image))], workshop.services(Memory()).store, lambda: TOOLS)
    write_lock(lock_path(template.path), made)
    return made


def test_the_same_template_is_as_its_lock_says(workshop: Workshop) -> None:
    build(workshop)
    lock_of(workshop)
    assert build(workshop, locked=True).image
    assert build(workshop, locked=True, force=False).unchanged


def test_a_lock_is_read_as_it_was_written_and_gives_the_epoch(workshop: Workshop) -> None:
    build(workshop)
    made = lock_of(workshop)
    path = workshop.directory / "web.lock.yaml"
    assert load_lock(path) == made
    assert path.read_text().splitlines()[0].startswith("# Written by `bake lock`")
    assert not write_lock(path, made), "written anew, nothing changes"
    path.write_text(path.read_text().replace(f"epoch: {made.epoch}", "epoch: 1700000000"))
    assert (workshop.template(*STEPS).epoch.seconds, workshop.template(*STEPS).epoch.origin) == (1700000000, "lock")


def test_a_stale_lock_stops_a_build_before_anything_is_made_and_says_everything(workshop: Workshop) -> None:
    build(workshop)
    lock_of(workshop)
    (workshop.directory / "motd").write_text("Another\n")
    with pytest.raises(LockError) as caught:
        build(workshop, "shell: step-9", STEPS[1], locked=True)
    inputs, motd = caught.value.problems
    assert (inputs.code, motd.code) == ("lock.inputs-changed", "lock.file-changed")
    assert motd.message.startswith("motd ") and "bake lock --update web.yaml" in inputs.hint and caught.value.exit_code == 8
    assert workshop.ran == [] and workshop.builder.events == []


def test_another_source_stops_a_build_before_a_machine_starts(workshop: Workshop) -> None:
    build(workshop)
    lock_of(workshop)
    disk = workshop.directory / "disk.qcow2"
    disk.unlink()
    create_qcow2(disk, 2 << 20)
    with pytest.raises(LockError) as caught:
        build(workshop, locked=True)
    assert [problem.code for problem in caught.value.problems] == ["lock.source-changed"]
    assert workshop.builder.events == []


def test_without_a_lock_a_build_that_wants_one_fails(workshop: Workshop) -> None:
    with pytest.raises(LockError) as caught:
        build(workshop, locked=True)
    (problem,) = caught.value.problems
    assert problem.code == "lock.missing" and problem.file.endswith("web.lock.yaml") and "bake lock web.yaml" in problem.hint
    assert not [event for event in workshop.heard.events if isinstance(event, StepStarted)]


def with_a_root(workshop: Workshop) -> None:
    """Give the workshop's source a file system that bake can read, without packages."""
    disk = disk_of(write_tree(workshop.directory / "tree", {"etc/x": "", "usr/bin/sh": ""}), workshop.directory / "root")
    qemuimg.convert(disk, workshop.directory / "disk.qcow2", "qcow2")


def with_a_locked_package(workshop: Workshop) -> None:
    """The lock of the last image, with a package in it that the image has not."""
    made = lock_of(workshop)
    image = made.images["web"].model_copy(update={"packages": ("nginx 1.22.1-9 amd64 deb",)})
    write_lock(workshop.directory / "web.lock.yaml", made.model_copy(update={"images": {"web": image}}))


def test_packages_that_are_not_known_are_not_those_of_a_lock(workshop: Workshop) -> None:
    build(workshop)
    assert "the list of the image's packages is not complete" in workshop.said, "the disk is blank"
    with_a_locked_package(workshop)
    for force in (True, False):
        with pytest.raises(LockError) as caught:
            build(workshop, locked=True, force=force)
        (problem,) = caught.value.problems
        assert problem.code == "lock.packages-unknown" and "no file system that bake can read" in problem.message


def test_other_packages_fail_a_locked_build_and_are_a_warning_for_another(workshop: Workshop) -> None:
    with_a_root(workshop)
    build(workshop)
    assert "not complete" not in workshop.said
    with_a_locked_package(workshop)
    images = len(workshop.catalog.images("web"))
    for force in (True, False):  # a new image, and the one that is there
        with pytest.raises(LockError) as caught:
            build(workshop, locked=True, force=force)
        (problem,) = caught.value.problems
        assert problem.code == "lock.package-changed"
        assert all(fact in problem.message for fact in ("nginx:amd64", "1.22.1-9", "none"))
    assert len(workshop.catalog.images("web")) == images, "it is not registered"
    build(workshop)
    warnings = [event.text for event in workshop.heard.events if isinstance(event, Message) and event.level == "warning"]
    assert any("nginx:amd64" in text and "1.22.1-9" in text for text in warnings)


def test_a_broken_lock_is_no_obstacle_to_a_build_that_is_not_held_to_it(workshop: Workshop) -> None:
    build(workshop)
    (workshop.directory / "web.lock.yaml").write_text("schema: 1\nepoch: soon\n")
    assert build(workshop).image
    with pytest.raises(LockError, match=r"web.lock.yaml:2:8: "):
        build(workshop, locked=True)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_broken_lock_is_explained_where_it_is_broken(case: Path) -> None:
    """The first lines of a case, `# expect: LINE TEXT`, say what is to be reported."""
    expected = [line.removeprefix("# expect: ").split(" ", 1) for line in case.read_text().splitlines() if line.startswith("# expect: ")]
    with pytest.raises(LockError) as caught:
        load_lock(case)
    found = [(str(problem.line), problem.message + " " + problem.hint) for problem in caught.value.problems]
    assert len(found) == len(expected), found
    for (line, text), (at, message) in zip(expected, found, strict=True):
        assert line == at and text in message


def test_what_was_fetched_is_in_the_lock_with_the_date_of_each_index(workshop: Workshop) -> None:
    build(workshop)
    store = workshop.services(Memory()).store
    release = store.add_bytes(b"Origin: Debian\nDate: Sat, 22 Nov 2026 08:00:00 UTC\n")
    package = "sha256:" + "ab" * 32
    lines = [
        json.dumps({"method": "GET", "url": url, "status": status, "digest": digest})
        for url, status, digest in (
            ("http://deb.example/debian/dists/trixie/InRelease", 200, release),
            ("http://deb.example/debian/pool/n/nginx_1_amd64.deb", 200, package),
            ("http://deb.example/debian/pool/n/gone_1_amd64.deb", 404, package),
        )
    ]
    evidence = {
        "fetches": store.add_bytes(pack_lines(lines)),
        "packages_after": store.add_bytes(pack_packages(PackageList((Package("b", "2"), Package("a", "1"))))),
    }
    record: BuildRecord = workshop.catalog.build_of(workshop.catalog.images("web")[0])
    made = make_lock([Built(workshop.template(*STEPS), replace(record, evidence=evidence))], store, lambda: TOOLS).images["web"]
    assert [(each.url, each.date) for each in made.indexes] == [
        ("http://deb.example/debian/dists/trixie/InRelease", "Sat, 22 Nov 2026 08:00:00 UTC")
    ]
    assert [each.digest for each in made.downloads] == [package]
    assert made.packages == ("a 1 - deb", "b 2 - deb")


def test_a_tool_has_the_digest_of_its_binary_only_while_that_is_the_one_of_the_build(workshop: Workshop) -> None:
    build(workshop)
    record = workshop.catalog.build_of(workshop.catalog.images("web")[0])
    template, store = workshop.template(*STEPS), workshop.services(Memory()).store
    now = make_lock([Built(template, record)], store, host_facts.tool_versions).tools
    later = make_lock([Built(template, record)], store, lambda: {"qemu-img": "another"}).tools
    assert len(now["qemu-img"].sha256) == 64 and later["qemu-img"].sha256 == ""


def test_a_secret_value_is_not_in_the_lock_and_the_lock_holds_on_another_host(workshop: Workshop) -> None:
    def template(key: bytes) -> Template:
        path = workshop.directory / "web.yaml"
        path.write_text(
            "schema: 1\nname: web\nversion: 1.0.0\nsource: {file: disk.qcow2}\n"
            "variables:\n  token: {default: hunter2hunter2, sensitive: true}\n"
            'provisioners:\n  - shell: "echo ${{ var.token }}"\n'
        )
        return load(path, env={}, secret_key=key)[0]

    build(workshop)
    record = workshop.catalog.build_of(workshop.catalog.images("web")[0])
    store = workshop.services(Memory()).store
    here, there = (make_lock([Built(template(key), record)], store, lambda: TOOLS) for key in (b"a" * 32, b"b" * 32))
    assert here == there
    assert "hunter2" not in here.text()


def test_changes_between_locks_name_each_thing(workshop: Workshop) -> None:
    build(workshop)
    old = lock_of(workshop)
    image = old.images["web"].model_copy(update={"packages": ("nginx 1.2 amd64 deb",), "version": "1.1.0"})
    new = old.model_copy(update={"images": {"web": image}})
    assert [(each.what, each.name, each.before, each.after) for each in changes(old, new)] == [
        ("version", "", "1.0.0", "1.1.0"),
        ("package", "nginx:amd64", "", "1.2"),
    ]
    assert changes(new, new) == []
    assert {each.before for each in changes(None, new)} == {""}


def test_many_other_packages_are_not_all_listed(workshop: Workshop) -> None:
    build(workshop)
    image = lock_of(workshop).images["web"]
    found = package_problems(Path("web.lock.yaml"), image, PackageList(tuple(Package(f"p{n:03}", "1") for n in range(50))))
    assert len(found) == 21 and found[-1].message.startswith("30 ")


# --- bake lock -------------------------------------------------------------------------------------------------------


def a_template(directory: Path) -> Path:
    path = directory / "web.yaml"
    path.write_text("schema: 1\nname: web\nversion: 1.4.0\nsource: {debootstrap: {suite: trixie}}\nprovisioners:\n  - shell: echo\n")
    return path


def test_lock_without_an_image_and_without_a_build_is_not_found(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    template = a_template(tmp_path)
    result = cli("lock", "--no-build", template)
    assert result.code == 5 and "web 1.4.0" in result.err
    assert cli.script.requests == []


def test_lock_update_asks_for_a_build_of_everything_anew_and_ends_as_that_does(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    template = a_template(tmp_path)
    cli.script.results = [a_result(status="failed", exit_code=3, error="it broke")]
    result = cli("lock", "--update", template)
    assert result.code == 3
    assert cli.script.requests[0].options.pull and cli.script.requests[0].options.no_cache
    assert not lock_path(template).exists()


def test_the_lock_shows_what_changes_in_every_template_and_writes_only_without_check(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    template = a_template(tmp_path)
    lock = lock_path(template)
    cli.script.results = [registered(cli, template, "nginx 1.26.3-2")]
    assert cli("lock", "--update", template).code == 0
    first = lock.read_bytes()
    cli.script.results = [registered(cli, template, "nginx 1.26.3-3")]
    shown = cli("lock", "--update", "--check", template)
    assert shown.code == 1 and "would change" in shown.out and lock.read_bytes() == first
    assert [line.split() for line in shown.out.splitlines()[:2]] == [
        ["IMAGE", "WHAT", "NAME", "FROM", "TO"],
        ["web", "package", "nginx:amd64", "1.26.3-2", "1.26.3-3"],
    ]
    (report,) = json.loads(cli("lock", "--update", "--json", template).out)
    assert report["written"] and [(each["name"], each["before"], each["after"]) for each in report["changes"]] == [
        ("nginx:amd64", "1.26.3-2", "1.26.3-3")
    ]
    assert "nginx 1.26.3-3 amd64 deb" in lock.read_text()


def registered(cli: Cli, path: Path, package: str, source: Mapping[str, object] | None = None) -> BuildResult:
    """Every image of a template, built with this package; the result is that of the last."""
    from baker.artifacts.ansible_content import pack
    from baker.core.model import AnsibleContent

    with cli.baker as baker:
        baker.home.data.mkdir(parents=True, exist_ok=True)
        for template in load(path, env={}, secret_key=b"k" * 32):
            evidence = {
                "packages_after": baker.store.add_bytes(pack_packages(PackageList((Package(*package.split(), "amd64"),)))),
                "brought": baker.store.add_bytes(pack([AnsibleContent("role", "nginx", "1.0", "sha256:" + "1" * 64)])),
            }
            spec = source or {"kind": "debootstrap", "title": "debian", "digest": "sha256:" + "e" * 64, "pins": {"suite": "trixie"}}
            image = an_image(template.name, template.version, len(baker.catalog.images()) + 1)
            baker.catalog.register(a_build(image, evidence=evidence, source=spec, tools={}), image)
    return a_result(template.name, image=image, build_id=image.build)


def test_a_matrix_has_one_lock_with_all_its_images_and_only_one_of_them_can_be_renewed(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    path = tmp_path / "web.yaml"
    path.write_text(
        "schema: 1\nname: web-${{ matrix.arch }}\nversion: 1.0.0\nsource: {debootstrap: {suite: trixie}}\n"
        "matrix: {arch: [a, b]}\nprovisioners:\n  - shell: echo\n"
    )
    registered(cli, path, "nginx 1")
    with cli.baker as baker:
        images = [baker.catalog.resolve(name) for name in ("web-a", "web-b")]
    cli.script.results = [a_result(image.name, image=image, build_id=image.build) for image in images]
    assert cli("lock", "--update", path).code == 0
    assert sorted(load_lock(lock_path(path)).images) == ["web-a", "web-b"]
    renewed = registered(cli, path, "nginx 2")
    cli.script.results = [renewed]
    assert cli("lock", "--update", path, "--only", "web-b").code == 0
    assert [image.packages for image in load_lock(lock_path(path)).images.values()] == [("nginx 1 amd64 deb",), ("nginx 2 amd64 deb",)]


def test_an_ami_is_locked_by_its_id_although_this_host_cannot_know_it_before_a_build(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    path = tmp_path / "web.yaml"
    path.write_text(
        "schema: 1\nname: web\nversion: 1.0.0\nsource: {ami: {id: ami-0123456789abcdef0}}\n"
        "builder: {kind: ec2, region: eu-west-1, instance_type: t3.small}\nprovisioners:\n  - shell: echo\n"
    )
    pins = {"ami": "ami-0123456789abcdef0", "region": "eu-west-1", "owner": "136693071363", "creation_date": "2026-11-01T00:00:00.000Z"}
    spec = {"kind": "ami", "title": "debian-13", "digest": "sha256:" + "a" * 64, "pins": pins}
    made = registered(cli, path, "nginx 1", source=spec)
    cli.script.results = [replace(made, status="unchanged")]
    assert cli("lock", path).code == 0
    locked = load_lock(lock_path(path)).images["web"]
    assert (locked.source.kind, locked.source.pins) == ("ami", pins) and locked.packages == ("nginx 1 amd64 deb",)


def test_all_templates_with_a_lock(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home")
    with contextlib.chdir(tmp_path):
        result = cli("lock", "--all")
        assert result.code == 2 and "[usage.missing-argument]" in result.err
        template = a_template(tmp_path)
        cli.script.results = [registered(cli, template, "nginx 1")]
        assert cli("lock", "--update", template).code == 0
        (report,) = json.loads(cli("lock", "--all", "--update", "--json").out)
        assert (Path(report["lock"]).name, report["written"], report["changes"]) == ("web.lock.yaml", False, [])
        assert cli("lock").code == 2


# --- a lock that was edited by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "code", "facts"),
    [
        ("motd: [0-9a-f]{64}", "motd: " + "0" * 64, "lock.file-changed", ("motd",)),
        (r"digest: sha256:[0-9a-f]{64}", "digest: sha256:" + "0" * 64, "lock.source-changed", ("disk.qcow2", "sha256:" + "0" * 64)),
        ("inputs: [0-9a-f]{64}", "inputs: " + "0" * 64, "lock.inputs-changed", ()),
        ("packages: .*", "packages: [nginx 1.0 amd64 deb]", "lock.package-changed", ("nginx:amd64", "1.0", "none")),
        (
            "roles: .*",
            "roles: [{name: nginx, version: '1.0', digest: 'sha256:" + "0" * 64 + "'}]",
            "lock.content-changed",
            ("role nginx", "1.0 000000000000", "none"),
        ),
        ("version: 1.0.0", "version: 1.0.1", "lock.version-changed", ("web", "1.0.0", "1.0.1")),
        ("digest: sha256:[0-9a-f]{64}", "digest: sha256:short", "template.bad-format", ("digest",)),
    ],
    ids=["file", "source", "inputs", "package", "role", "version", "no digest"],
)
def test_what_was_edited_in_a_lock_is_named(workshop: Workshop, before: str, after: str, code: str, facts: tuple[str, ...]) -> None:
    with_a_root(workshop)
    build(workshop)
    lock_of(workshop)
    path = workshop.directory / "web.lock.yaml"
    head, images = path.read_text().split("images:\n")
    edited, count = re.subn(before, after, images, count=1)
    assert count == 1 and edited != images
    path.write_text(f"{head}images:\n{edited}")
    with pytest.raises(LockError) as caught:
        build(workshop, locked=True)
    (problem,) = caught.value.problems
    assert problem.code == code and problem.file.endswith("web.lock.yaml")
    assert all(fact in str(problem) for fact in facts)


# --- roles and collections --------------------------------------------------------------------------------------------


def test_roles_and_collections_are_told_with_their_commits(tmp_path: Path) -> None:
    files, source = tmp_path / "files", tmp_path / "git" / "ansible-web"
    source.mkdir(parents=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q", "-b", "main"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        run(["git", "-C", source, *words])
    commit = run(["git", "-C", source, "rev-parse", "HEAD"]).stdout.strip()
    (files / "roles/web/meta").mkdir(parents=True)
    (files / "roles/web/meta/.galaxy_install_info").write_text("install_date: today\nversion: main\n")
    collection = files / "collections/ansible_collections/community/general"
    collection.mkdir(parents=True)
    info = {"namespace": "community", "name": "general", "version": "9.1.0"}
    (collection / "MANIFEST.json").write_text(json.dumps({"collection_info": info}))
    requirements = tmp_path / "requirements.yaml"
    requirements.write_text(f"roles: [{{src: {source}, scm: git, name: web, version: main}}]\ncollections: [community.general]\n")
    role, general = installed(files, requirements)
    assert (role.kind, role.name, role.version, role.ref, role.commit) == ("role", "web", "main", "main", commit)
    assert (general.kind, general.name, general.version, general.commit) == ("collection", "community.general", "9.1.0", "")
    (files / "roles/web/meta/.galaxy_install_info").write_text("install_date: tomorrow\nversion: main\n")
    assert installed(files, requirements)[0].digest == role.digest, "when it was installed says nothing of what it is"
    (files / "roles/web/main.yaml").write_text("- debug:\n")
    assert installed(files, requirements)[0].digest != role.digest
