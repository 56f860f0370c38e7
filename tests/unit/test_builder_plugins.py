"""A builder that is a package of its own: its keys, its errors, its part of the plan, its machines; nothing in bake knows its name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from baker.build.recipe import Outcome, bake
from baker.core.errors import HostError, TemplateError, UsageError
from baker.core.events import Memory
from baker.machines import registry
from baker.machines.base import Builder, SupportsSnapshot
from baker.machines.spec import spec_of
from baker.plan.plan import recorded_machine_spec
from baker.plan.requests import BuildOptions
from baker.template.load import load
from tests.support.cli import Bake, Result
from tests.support.documents import DOCS, write_examples
from tests.support.plugins import install_package, on_path, write_distribution
from tests.support.workshop import Workshop, open_workshop

PACKAGE = Path(__file__).parents[1] / "plugins/bake-builder-fake"
HEAD = "schema: 1\nname: web\nversion: 1.0.0\nsource: {file: disk.qcow2}\n"
STEPS = "provisioners:\n  - shell: step-1\n  - shell: step-2\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed the package."""
    return install_package(PACKAGE, tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as workshop:
        yield workshop


@pytest.fixture
def cli(workshop: Workshop, site: Path) -> Bake:
    return Bake(workshop.directory / "home", env={"PYTHONPATH": str(site), "HOME": str(workshop.directory)})


def write(directory: Path, builder: str, name: str = "web.yaml") -> Path:
    path = directory / name
    path.write_text(f"{HEAD}builder: {builder}\n{STEPS}")
    return path


def test_its_keys_are_in_the_schema(cli: Bake) -> None:
    schema = cli("schema").ok().json
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    keys = schema["$defs"]["builder.fake"]["properties"]
    assert set(keys) == {"kind", "flavor", "zone", "first_boot", "tags"}
    assert keys["zone"]["description"] == "where it runs"

    def fits(builder: str) -> bool:
        return validator.is_valid(yaml.safe_load(f"{HEAD}builder: {builder}\n"))

    assert fits("{kind: fake, flavor: small, zone: south}")
    assert fits("{kind: fake, flavor: '${{ var.size }}'}")
    assert not fits("{kind: fake}")
    assert not fits("{kind: fake, flavor: small, zone: west}")
    assert not fits("{kind: fake, flavor: small, cpus: 2}")
    assert not fits("{flavor: small}")
    assert not fits("{cpus: 2, zone: south}")
    assert fits("{cpus: 2}")


def test_without_the_package_there_is_no_trace_of_it(cli: Bake, workshop: Workshop) -> None:
    del cli.env["PYTHONPATH"]
    assert "fake" not in cli("schema").ok().out
    (problem,) = problems(cli("validate", write(workshop.directory, "{kind: fake, flavor: small}"), "--json"))
    assert (problem["line"], problem["column"], problem["code"]) == (5, 17, "plugin.unknown")


MISTAKES = (  # what is wrong -> where, and how
    ("{kind: fake, flavor: huge}", (5, 31, "fake.unknown-flavor", "there is no flavor huge: want small or large")),
    ("{kind: fake, flavor: small, zone: west}", (5, 44, "template.not-a-choice", "builder.zone")),
    ("{kind: fake, flavor: small, zon: south}", (5, 38, "template.unknown-key", "zon")),
    ("{kind: fake}", (5, 10, "template.missing-key", "flavor")),
    ("{kind: fake, flavor: large, zone: south}", (5, 10, "template.bad-value", "zone south has no machines of flavor large")),
    ("{kind: fake, flavor: small, first_boot: nothing.sh}", (5, 50, "template.missing-file", "nothing.sh")),
)


def test_its_errors_are_where_they_were_typed(cli: Bake, workshop: Workshop) -> None:
    paths = [write(workshop.directory, builder, name=f"t{index}.yaml") for index, (builder, _) in enumerate(MISTAKES)]
    result = cli("validate", *paths, "--json")
    assert result.code == 2
    for path, found, (_, expected) in zip(paths, result.json, MISTAKES, strict=True):
        (problem,) = found["problems"]
        assert (problem["file"], problem["line"], problem["column"], problem["code"]) == (str(path), *expected[:3])
        assert expected[3] in problem["message"]


def problems(result: Result) -> list[dict[str, Any]]:
    assert result.code == 2, result.err
    (file,) = result.json
    return list(file["problems"])


def test_a_person_reads_them_with_the_line(cli: Bake, workshop: Workshop) -> None:
    result = cli("validate", write(workshop.directory, "{kind: fake, flavor: huge}"))
    assert "web.yaml:5:31: builder.flavor: there is no flavor huge" in result.err
    assert "5 | builder: {kind: fake, flavor: huge}" in result.err
    assert result.err.splitlines()[0].removeprefix(f"{workshop.directory}/") in (DOCS / "plugins.md").read_text()


def test_a_source_that_it_cannot_start_from(cli: Bake, workshop: Workshop) -> None:
    path = write(workshop.directory, "{kind: fake, flavor: small}")
    path.write_text(path.read_text().replace("{file: disk.qcow2}", "{debootstrap: trixie}"))
    (problem,) = problems(cli("validate", path, "--json"))
    assert (problem["line"], problem["column"], problem["code"]) == (4, 10, "template.source-of-another-builder")
    assert "file, image" in problem["hint"]


FIRST = "{kind: fake, flavor: small, first_boot: one.sh}"
CHANGES = (  # of FIRST -> whether the keys of steps, and whether the fingerprint, are others
    ("{kind: fake, flavor: large, first_boot: one.sh}", True, True),
    ("{kind: fake, flavor: small, first_boot: other.sh}", True, True),
    ("{kind: fake, flavor: small, first_boot: one.sh, tags: {team: web}}", False, True),
    ("{kind: fake, flavor: small, first_boot: one.sh, zone: south}", False, False),
    ("{kind: fake, flavor: small, first_boot: same-as-one.sh}", False, False),
)


def test_its_part_of_the_keys_and_of_the_fingerprint(cli: Bake, workshop: Workshop, site: Path) -> None:
    for name, text in (("one.sh", "echo 1\n"), ("same-as-one.sh", "echo 1\n"), ("other.sh", "echo 2\n")):
        (workshop.directory / name).write_text(text)
    with on_path(site):
        build(workshop, FIRST)  # the source is on this host from now on
    builders = [FIRST, *(builder for builder, *_ in CHANGES)]
    paths = [write(workshop.directory, builder, name=f"t{index}.yaml") for index, builder in enumerate(builders)]
    before, *others = cli("plan", *paths, "--json").ok().json
    for after, (builder, steps, fingerprint) in zip(others, CHANGES, strict=True):
        differ = [one["key"] != other["key"] for one, other in zip(before["steps"], after["steps"], strict=True)]
        assert differ == [steps, steps], builder
        assert (before["fingerprint"] != after["fingerprint"]) == fingerprint, builder
    assert "fake, small, zone south" in cli("plan", paths[4]).ok().out


def test_the_example_of_the_documentation_is_this_package(tmp_path: Path) -> None:
    write_examples("plugins.md", tmp_path)
    name = "bake_builder_fake/config.py"
    assert (tmp_path / name).read_text() == (PACKAGE / name).read_text(), "copy the module into docs/plugins.md"
    entry = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    assert f'fake = "{entry["fake"]}"' in (DOCS / "plugins.md").read_text()


# --- machines ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(site: Path) -> Iterator[None]:
    with on_path(site):
        yield


def build(workshop: Workshop, builder: str) -> Outcome:
    made: list[Builder] = []

    def make(config: Any, uri: str | None) -> Builder:
        made.append(registry.make(workshop.home, config, uri))
        return made[-1]

    template = load(write(workshop.directory, builder), env={}, secret_key=b"k" * 32)[0]
    workshop.heard = Memory()
    outcome = bake(template, BuildOptions(), replace(workshop.services(workshop.heard), builder=make))
    assert {each.kind for each in made} == {"fake"}
    return outcome


@pytest.mark.usefixtures("installed")
def test_its_machines_are_built_on_kept_and_recorded(workshop: Workshop) -> None:
    first = build(workshop, "{kind: fake, flavor: small}")
    assert workshop.ran == ["shell 1", "shell 2"]
    assert workshop.left() == []
    assert first.image is not None
    record = workshop.catalog.build_of(first.image)
    assert first.image.builder == "fake"
    assert record.shape == {"kind": "fake", "flavor": "small", "zone": "north", "first_boot": None, "tags": {}}
    assert record.machine["connection"] == "fake://north/"
    again = build(workshop, "{kind: fake, flavor: small, zone: south}")
    assert again.image == first.image
    tagged = build(workshop, "{kind: fake, flavor: small, tags: {team: web}}")
    assert tagged.image != first.image
    assert workshop.cached == [1, 2], "the steps' keys are the same, so its own layer is where it goes on from"
    assert {layer.record.builder for layer in workshop.layers.all()} == {"fake"}


@pytest.mark.usefixtures("installed")
def test_a_configuration_comes_back_from_its_record(workshop: Workshop) -> None:
    (workshop.directory / "boot.sh").write_text("echo\n")
    template = load(write(workshop.directory, "{kind: fake, flavor: large, first_boot: boot.sh, tags: {a: b}}"), env={})[0]
    recorded = recorded_machine_spec(template)
    assert recorded["first_boot"] == str(workshop.directory / "boot.sh")
    config = spec_of("fake", recorded | {"of a later version": 1})
    assert config == template.builder
    assert isinstance(registry.make(workshop.home, config), SupportsSnapshot)
    with pytest.raises(HostError, match="flavor") as error:
        spec_of("fake", {})
    assert error.value.code == "record.builder-unusable"


@pytest.mark.usefixtures("installed")
def test_it_cleans_up_what_a_killed_build_left(workshop: Workshop) -> None:
    left = workshop.directory / "left"
    left.mkdir()
    makers = {builder.kind: builder for builder in registry.all_for_sweep(workshop.home)}
    assert makers["fake"].reclaim("fake:directory", {"path": str(left)}) is True
    assert makers["fake"].reclaim("libvirt:domain", {}) is False
    assert not left.exists()


# --- other packages ------------------------------------------------------------------------------------------------------------

OLD = "class Builder:\n    def __init__(self, home, uri=None): self.uri = uri\n"


def test_a_plugin_without_keys_of_its_own_has_those_of_libvirt(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "bake_old_builder.py").write_text(OLD)
    write_distribution(tmp_path, "bake-old", registry.GROUP, {"old": "bake_old_builder:Builder"})
    with on_path(tmp_path):
        template = load(write(workshop.directory, "{kind: old, cpus: 4, uri: 'qemu:///system'}"), env={})[0]
        assert registry.make(workshop.home, template.builder).uri == "qemu:///system"  # type: ignore[attr-defined]
        assert registry.make(workshop.home, template.builder, "qemu:///session").uri == "qemu:///session"  # type: ignore[attr-defined]
        assert recorded_machine_spec(template)["cpus"] == 4
        assert spec_of("old", recorded_machine_spec(template)).kind == "old"


@pytest.mark.parametrize("text", ["raise RuntimeError('no licence')", "class Builder:\n    Config = dict\n"], ids=["import", "model"])
def test_a_broken_plugin_is_a_problem_at_its_name(workshop: Workshop, tmp_path: Path, text: str, request: pytest.FixtureRequest) -> None:
    module = f"bake_broken_builder_{request.node.callspec.id}"
    (tmp_path / f"{module}.py").write_text(text)
    write_distribution(tmp_path, "bake-broken", registry.GROUP, {"broken": f"{module}:Builder"})
    with on_path(tmp_path), pytest.raises(TemplateError) as error:
        load(write(workshop.directory, "{kind: broken, flavor: small}"), env={})
    (problem,) = error.value.problems
    assert (problem.line, problem.column, problem.code) == (5, 17, "plugin.broken")


def test_two_packages_with_one_builder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_distribution(tmp_path, f"bake-{name}", registry.GROUP, {"cloud": f"bake_{name}:Cloud"})
    with on_path(tmp_path), pytest.raises(UsageError, match=r"bake-one .* bake-two") as error:
        registry.get("cloud")
    assert error.value.code == "plugin.duplicate"
