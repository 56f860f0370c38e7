"""`bake validate` against a directory with everything that its answer can depend on: what spoils a template is seen."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from baker.provision import registry
from tests.support.documents import write_examples
from tests.support.fake_app import Cli, Result
from tests.support.plugins import on_path

TEMPLATE = """\
schema: 1
name: shop
version: 1.0.0
variables:
  title: {default: Hello, pattern: "[A-Z].*"}
  stage: {default: test, allowed: [test, prod]}
source: {debootstrap: {suite: trixie}}
labels: {team: "${{ env.TEAM }}"}
provisioners:
  - shell: {script: setup.sh}
  - include: steps.yaml
  - uses: greeter
verify:
  - testinfra: tests
"""
BUNDLE = """\
schema: 1
name: greeter
provisioners:
  - file: {source: motd, destination: /etc/motd}
"""


@dataclass
class Project:
    """A directory with a template that uses everything a verdict can depend on."""

    directory: Path
    cli: Cli

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def validate(self, *options: str) -> Result:
        return self.cli("validate", self / "web" / "web.yaml", *options)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", Cli(tmp_path / "home", env={"TEAM": "shop"}))
    made.write("web/web.yaml", TEMPLATE)
    made.write("web/steps.yaml", "- shell: echo one\n")
    made.write("web/setup.sh", "#!/bin/sh\n")
    made.write("web/tests/test_web.py", "")
    made.write("web/prod.yaml", "stage: prod\n")
    made.write("provisioners/greeter/provisioner.yaml", BUNDLE)
    made.write("provisioners/greeter/motd", "hello\n")
    (made / ".git").mkdir()
    return made


def test_a_valid_template(project: Project) -> None:
    assert project.validate().out.endswith("web.yaml: valid\n")
    assert json.loads(project.validate("--json").out)[0]["images"] == [{"name": "shop", "version": "1.0.0"}]


def edit(name: str, text: str) -> Callable[[Project], None]:
    return lambda project: project.write(name, text)


def remove(name: str) -> Callable[[Project], None]:
    return lambda project: shutil.rmtree(project / name) if (project / name).is_dir() else (project / name).unlink()


def environment(name: str, value: str | None) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        project.cli.env.pop(name, None)
        project.cli.env |= {} if value is None else {name: value}

    return change


def same_size(name: str, before: str, after: str) -> Callable[[Project], None]:
    """An edit that changes neither size nor time."""

    def change(project: Project) -> None:
        path, stat = project / name, (project / name).stat()
        path.write_text(path.read_text().replace(before, after))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size == stat.st_size

    return change


def other_target(project: Project) -> None:
    """The directory of the template becomes a symbolic link to one elsewhere with the same content, where there is no bundle."""
    shutil.move(project / "web", project.directory.parent / "elsewhere")
    (project / "web").symlink_to(project.directory.parent / "elsewhere")


SPOILED = {
    "template edited": edit("web/web.yaml", TEMPLATE + "colour: red\n"),
    "template edited, same size and time": same_size("web/web.yaml", "version", "versoin"),
    "template gone": remove("web/web.yaml"),
    "include edited": edit("web/steps.yaml", "- shel: echo one\n"),
    "include gone": remove("web/steps.yaml"),
    "bundle edited": edit("provisioners/greeter/provisioner.yaml", BUNDLE + "colour: red\n"),
    "bundle gone": remove("provisioners/greeter"),
    "another bundle nearer": edit("web/provisioners/greeter/provisioner.yaml", "schema: 1\nname: wrong\n"),
    "a git repository nearer, so the bundle is outside": lambda project: (project / "web/.git").mkdir(),
    "script of a step gone": remove("web/setup.sh"),
    "file of a bundle's step gone": remove("provisioners/greeter/motd"),
    "tests gone": remove("web/tests"),
    "environment variable gone": environment("TEAM", None),
    "variable set in the environment": environment("BAKE_VAR_stage", "proud"),
    "directory is elsewhere": other_target,
}


@pytest.mark.parametrize("change", SPOILED.values(), ids=SPOILED.keys())
def test_what_spoils_a_template_is_seen(project: Project, change: Callable[[Project], None]) -> None:
    assert project.validate().code == 0
    change(project)
    assert project.validate().code == 2


HARMLESS = {
    "environment variable changed": environment("TEAM", "other"),
    "bundle's own tests appeared": edit("provisioners/greeter/test_greeter.py", ""),
    "tests are a file now": lambda project: (remove("web/tests")(project), edit("web/tests", "")(project)),
    "an unrelated file": edit("web/README", "hello\n"),
    "another script": edit("web/setup.sh", "#!/bin/sh\necho another\n"),
    "a variable of another template": environment("BAKE_VAR_of_another_template", "1"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_does_not_spoil_it(project: Project, change: Callable[[Project], object]) -> None:
    change(project)
    assert project.validate().code == 0


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (("--var=stage=prod",), ("--var=stage=proud",)),
        (("--var=title=Hello",), ("--var=title=hello",)),
        (("--only=shop",), ("--only=other",)),
        (("--except=other",), ("--except=shop",)),
    ],
)
def test_options_decide(project: Project, good: tuple[str], bad: tuple[str]) -> None:
    assert [project.validate(*options).code for options in (good, bad, good)] == [0, 2, 0]


def test_a_variable_file_counts_by_its_content(project: Project) -> None:
    option = f"--var-file={project / 'web/prod.yaml'}"
    assert project.validate(option).code == 0
    project.write("web/prod.yaml", "stage: proud\n")
    assert project.validate(option).code == 2


def test_a_relative_path_is_another_file_elsewhere(project: Project) -> None:
    project.write("other/web.yaml", TEMPLATE + "colour: red\n")
    with contextlib.chdir(project / "web"):
        assert project.cli("validate", "web.yaml").code == 0
    with contextlib.chdir(project / "other"):
        assert project.cli("validate", "web.yaml").code == 2


def test_a_source_file_that_is_gone_is_missed(project: Project) -> None:
    project.write("web/web.yaml", "schema: 1\nname: shop\nversion: 1.0.0\nsource: {file: {path: disk.qcow2}}\n")
    project.write("web/disk.qcow2", "")
    assert project.validate().code == 0
    (project / "web/disk.qcow2").unlink()
    assert project.validate().code == 2


def test_a_plugins_kind_is_there_only_while_the_plugin_is(project: Project, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    write_examples("plugins.md", site)
    info = site / "bake_user-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bake-user\nVersion: 1.0.0\n")
    kinds = tomllib.loads((site / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n" + "".join(f"{name} = {value}\n" for name, value in kinds.items()))
    project.write("web/web.yaml", TEMPLATE.replace("- uses: greeter", "- user: {name: deploy}"))
    with on_path(site):
        assert project.validate().code == 0
    assert project.validate().code == 2


SECRET = "hunter2hunter2"
TOKEN = TEMPLATE.replace("variables:", "variables:\n  token: {type: string, sensitive: true}")


@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_sensitive_values_leave_nothing_behind(project: Project, way: str) -> None:
    project.write("web/web.yaml", TOKEN)
    project.write("secret.yaml", f"token: {SECRET}\n")
    project.cli.env |= {"BAKE_VAR_token": SECRET} if way == "environment" else {}
    options = {"option": [f"--var=token={SECRET}"], "file": [f"--var-file={project / 'secret.yaml'}"]}.get(way, [])
    assert project.validate(*options).code == 0
    assert [path for path in project.cli.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


def test_a_home_that_nothing_can_be_written_to_works(project: Project) -> None:
    project.cli.home.mkdir()
    (project.cli.home / "cache").write_text("no directory")
    assert project.validate().code == 0
