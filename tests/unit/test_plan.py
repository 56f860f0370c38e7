"""Keys: what changes a step's outcome changes its key and all after it, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.model import Disk, SourceImage
from baker.core.secrets import Secrets
from baker.plan.plan import Plan, make_plan, recorded_machine_spec
from baker.provision import registry
from baker.template.libvirt import LibvirtSpec
from baker.template.load import load
from baker.template.model import CacheSpec, CommunicatorSpec, ImageSource, Step, Template

SOURCE = SourceImage("image", "base@1.0.0", "sha256:" + "a" * 64, Disk(Path("/x.qcow2"), "qcow2", 1 << 30))


def shell(name: str, base: Path, **config: object) -> Step:
    return Step(name, "shell", registry.get("shell").Config.model_validate(config), base, "t.yaml:1:1")


def file(name: str, base: Path, **config: object) -> Step:
    return Step(name, "file", registry.get("file").Config.model_validate(config), base, "t.yaml:2:1")


@pytest.fixture
def template(tmp_path: Path) -> Template:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.conf").write_text("one\n")
    (tmp_path / "run.sh").write_text("echo hello\n")
    steps = (
        shell("first", tmp_path, inline=["echo one"]),
        file("second", tmp_path, source="files", destination="/etc/app"),
        shell("third", tmp_path, script="run.sh", env={"TOKEN": "s3cretvalue"}),
        shell("fourth", tmp_path, inline=["echo four"]),
    )
    (tmp_path / "t.yaml").write_text("name: t\n")
    return Template(
        name="t", version="1.0.0", description="", labels={}, variables={}, source=ImageSource(image="base"), builder=LibvirtSpec(),
        communicator=CommunicatorSpec(), provisioners=steps, verify=(), on_error="cleanup", post_processors=(), reproducible=False,
        path=tmp_path / "t.yaml", text="name: t\n", files=(), secrets=Secrets({"token": "s3cretvalue"}, b"k" * 32),
    )  # fmt: skip


def step(template: Template, index: int, **changes: object) -> Template:
    steps = list(template.provisioners)
    steps[index - 1] = replace(steps[index - 1], **changes)
    return replace(template, provisioners=tuple(steps))


def inline(template: Template, index: int, text: str) -> Template:
    return step(template, index, config=registry.get("shell").Config.model_validate({"inline": [text]}))


def write(template: Template, name: str, text: str) -> Template:
    (template.path.parent / name).write_text(text)
    return template


def chmod(template: Template, name: str, mode: int) -> Template:
    (template.path.parent / name).chmod(mode)
    return template


def builder(template: Template, **changes: object) -> Template:
    return replace(template, builder=template.builder.model_copy(update=changes))


# what changes -> the first step whose key changes (5: only the image's fingerprint, None: nothing)
CHANGES = {
    "the first step's command": (lambda t: inline(t, 1, "echo uno"), 1),
    "a file in a tree": (lambda t: write(t, "files/a.conf", "two\n"), 2),
    "a new file in a tree": (lambda t: write(t, "files/b.conf", ""), 2),
    "a file's mode": (lambda t: chmod(t, "files/a.conf", 0o755), 2),
    "a script's bytes": (lambda t: write(t, "run.sh", "echo bye\n"), 3),
    "a secret's value": (lambda t: secret(t, "0therv4lue"), 3),
    "the last step's command": (lambda t: inline(t, 4, "echo vier"), 4),
    "memory": (lambda t: builder(t, memory=2 << 30), 1),
    "processors": (lambda t: builder(t, cpus=4), 1),
    "firmware": (lambda t: builder(t, firmware="uefi"), 1),
    "network": (lambda t: builder(t, network="closed"), 1),
    "clock": (lambda t: builder(t, clock="epoch"), 1),
    "disk size": (lambda t: builder(t, disk_size=9 << 30), 1),
    "machine type": (lambda t: builder(t, machine_type="pc"), 1),
    "reproducible": (lambda t: replace(t, reproducible=True), 5),
    "accelerator": (lambda t: builder(t, accelerator="tcg"), None),
    "the template's name": (lambda t: replace(t, name="other"), None),
    "the template's version": (lambda t: replace(t, version="2.0.0"), None),
    "description and labels": (lambda t: replace(t, description="x", labels={"a": "b"}), None),
    "a comment in the template": (lambda t: replace(t, text="# hello\nname: t\n"), None),
    "a step's name": (lambda t: step(t, 1, name="renamed"), None),
    "a step's time limit": (lambda t: step(t, 1, timeout=5.0), None),
    "a step's retries": (lambda t: step(t, 1, retries=3), None),
    "a step's place in the file": (lambda t: step(t, 1, origin="t.yaml:99:1"), None),
    "a step's cache rule": (lambda t: step(t, 1, cache=CacheSpec(max_age=5.0)), None),
    "on_error": (lambda t: replace(t, on_error="abort"), None),
    "an unrelated file": (lambda t: write(t, "README", "hello"), None),
    "a file's time": (lambda t: touch(t, "run.sh"), None),
}


def secret(template: Template, value: str) -> Template:
    config = registry.get("shell").Config.model_validate({"script": "run.sh", "env": {"TOKEN": value}})
    return replace(step(template, 3, config=config), secrets=Secrets({"token": value}, b"k" * 32))


def touch(template: Template, name: str) -> Template:
    path = template.path.parent / name
    path.write_bytes(path.read_bytes())
    return template


@pytest.mark.parametrize(("change", "first"), CHANGES.values(), ids=CHANGES)
def test_a_change_invalidates_from_its_step_on(template: Template, change, first: int | None) -> None:
    before = make_plan(template, SOURCE)
    after = make_plan(change(template), SOURCE)
    assert _first_difference(before, after) == first


def _first_difference(before: Plan, after: Plan) -> int | None:
    keys = [[*(s.key for s in plan.steps), plan.fingerprint] for plan in (before, after)]
    different = [index for index, (a, b) in enumerate(zip(*keys, strict=True), start=1) if a != b]
    assert different == list(range(different[0], 6)) if different else True, "a changed key changes every key after it"
    return different[0] if different else None


def test_another_source_changes_everything(template: Template) -> None:
    other = replace(SOURCE, digest="sha256:" + "b" * 64)
    assert _first_difference(make_plan(template, SOURCE), make_plan(template, other)) == 1


def test_taking_out_a_step_keeps_the_keys_before_it(template: Template) -> None:
    shorter = replace(template, provisioners=template.provisioners[:3])
    assert [s.key for s in make_plan(shorter, SOURCE).steps] == [s.key for s in make_plan(template, SOURCE).steps][:3]


def test_a_template_elsewhere_with_the_same_content_has_the_same_keys(template: Template, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "files").mkdir()
    (elsewhere / "files" / "a.conf").write_text("one\n")
    (elsewhere / "run.sh").write_text("echo hello\n")
    moved = replace(template, provisioners=tuple(replace(s, base_dir=elsewhere) for s in template.provisioners))
    assert _first_difference(make_plan(template, SOURCE), make_plan(moved, SOURCE)) is None


def test_no_secret_stands_in_a_plan(template: Template) -> None:
    plan = make_plan(template, SOURCE)
    assert "s3cretvalue" not in repr([(s.key, s.files) for s in plan.steps]) + plan.fingerprint + repr(plan.inputs)


# --- keys that images of today have ------------------------------------------------------------------------------------------

HEAD = "schema: 1\nname: web\nversion: 1.0.0\nsource: {image: base}\nprovisioners:\n  - shell: echo one\n"
GOLDEN = {  # builder -> root key, key of the only step, fingerprint: an image is looked for by these, so they stay as they are
    "libvirt": (
        "builder: {cpus: 4, memory: 2GiB, disk_size: 8GiB, firmware: uefi, network: closed, clock: epoch}\n",
        "3c74ca9c5cea88232ffaf489d0b66ce9a8fe138f0ecf6c25c9810a463dc1e982",
        "fca0776e1ac2a0e2d9f9ada7122807fcdf079d00315295a79ffa0802672955f7",
        "85d5d2e99679158fbdf063ae282dbfcc4d366c4627ea61a52f7ea8ae403284fa",
    ),
    "default": (
        "",
        "b65be5596ca7d19690d3d4fd9cd57c0464b2cb7579b299ddca3f0e826901144b",
        "1bdf1feeb5d50025ff8bac4b71376647deb9266fe75c62baef55f4901d83ce0d",
        "d88953cbbad4c931e9700ffb2a2d442885aa6ced5a6b8224adfb89c9ae15ad43",
    ),
    "ec2": (
        "builder:\n  kind: ec2\n  region: eu-west-1\n  instance_type: [t3.small, t3a.small]\n  volume_size: 8GiB\n  spot: true\n"
        "  user_data_file: user-data\n  ami_regions: [eu-central-1]\n  tags: {team: web}\n",
        "4f120d032b50cea4015a93e4ead983995cc3109fd55d3115abef29c454b97ca5",
        "5cf5dc86ea087e671f58499d155d8dbb79e22a5b0cf9038c9bb393c3d3b0a5d4",
        "33a00d86d53328a60e48629d0fb6109c06661cc37bf2cf7181d669dcf0a8653c",
    ),
}


@pytest.mark.parametrize(("builder", "root", "step", "fingerprint"), GOLDEN.values(), ids=GOLDEN)
def test_keys_stay_as_they_are(tmp_path: Path, builder: str, root: str, step: str, fingerprint: str) -> None:
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "web.yaml").write_text(HEAD + builder)
    plan = make_plan(load(tmp_path / "web.yaml", env={})[0], SOURCE)
    assert (plan.root_key, plan.steps[0].key, plan.fingerprint) == (root, step, fingerprint)


def test_what_the_record_says_of_the_machine_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("#cloud-config\n")
    recorded = []
    for builder, *_ in GOLDEN.values():
        (tmp_path / "web.yaml").write_text(HEAD + builder)
        recorded.append(recorded_machine_spec(load(tmp_path / "web.yaml", env={})[0]))
    assert recorded[0] == {
        "cpus": 4, "memory": 2 << 30, "disk_size": 8 << 30, "firmware": "uefi", "accelerator": "auto", "machine_type": "q35",
        "network": "closed", "clock": None,
    }  # fmt: skip
    ec2 = recorded[2]
    assert (ec2["kind"], ec2["instance_type"], ec2["volume_size"], ec2["tags"]) == (
        "ec2",
        ["t3.small", "t3a.small"],
        8 << 30,
        {"team": "web"},
    )
    assert ec2["user_data_file"] == str(tmp_path / "user-data")
    assert "user_data" not in ec2
    assert len(ec2) == 44
