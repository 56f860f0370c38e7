"""Keys: what changes a step's outcome changes its key and all after it, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.model import Disk, SourceImage
from baker.core.secrets import Secrets
from baker.plan.plan import Plan, make_plan
from baker.provision import registry
from baker.template.model import BuilderSpec, CacheSpec, CommunicatorSpec, ImageSource, Step, Template

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
        name="t", version="1.0.0", description="", labels={}, variables={}, source=ImageSource(image="base"), builder=BuilderSpec(),
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
