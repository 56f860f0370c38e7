"""What `bake validate` remembers: a template that was valid is answered from memory, and never after something changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from baker.cli.validation_cache import MOST, Verdicts
from baker.core.home import Home
from baker.provision import registry
from baker.template.dependencies import Observed
from tests.support.documents import write_examples
from tests.support.fake_app import Cli, FakeBaker, Result
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
class Looking(Cli):
    """`bake` that counts how often it had to look at a template itself."""

    looks: list[str] = field(default_factory=list)

    def make(self, home: Home, **options: Any) -> FakeBaker:
        self.looks.append("look")
        return super().make(home, **options)


@dataclass
class Project:
    """A directory with a template that uses everything a verdict can depend on."""

    directory: Path
    cli: Looking

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def validate(self, *options: str) -> Result:
        return self.cli("validate", self / "web" / "web.yaml", *options)

    def remembered(self, *options: str) -> bool:
        """Whether `validate` answers without looking. It must say "valid" then."""
        before = len(self.cli.looks)
        result = self.validate(*options)
        assert len(self.cli.looks) > before or result.code == 0
        return len(self.cli.looks) == before


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", Looking(tmp_path / "home", env={"TEAM": "shop"}))
    made.write("web/web.yaml", TEMPLATE)
    made.write("web/steps.yaml", "- shell: echo one\n")
    made.write("web/setup.sh", "#!/bin/sh\n")
    made.write("web/tests/test_web.py", "")
    made.write("web/prod.yaml", "stage: prod\n")
    made.write("provisioners/greeter/provisioner.yaml", BUNDLE)
    made.write("provisioners/greeter/motd", "hello\n")
    (made / ".git").mkdir()
    return made


def test_a_valid_template_is_looked_at_once(project: Project) -> None:
    first = project.validate()
    assert (first.code, len(project.cli.looks)) == (0, 1)
    assert project.remembered()
    assert project.validate().out == first.out


def test_json_answers_the_same_from_memory(project: Project) -> None:
    first = project.validate("--json")
    assert project.remembered("--json")
    assert project.validate("--json").out == first.out
    assert json.loads(first.out)[0]["images"] == [{"name": "shop", "version": "1.0.0"}]


def test_from_memory_it_loads_none_of_the_libraries_that_take_long(project: Project) -> None:
    project.validate()
    program = "import sys; from baker.cli.main import main; code = main(sys.argv[1:]); print(code, *sys.modules)"
    argv = [sys.executable, "-c", program, "validate", str(project / "web/web.yaml")]
    verdict, code_and_modules = subprocess.run(
        argv, env=project.cli.environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert verdict.endswith("web.yaml: valid")
    code, *modules = code_and_modules.split()
    assert code == "0"
    assert {"pydantic", "yaml", "sqlalchemy", "baker.api", "baker.template.load"} & set(modules) == set()


def test_an_invalid_template_is_looked_at_every_time(project: Project) -> None:
    project.write("web/web.yaml", TEMPLATE + "colour: red\n")
    assert [project.validate().code, project.validate().code] == [2, 2]
    assert len(project.cli.looks) == 2


def test_no_cache_looks_although_nothing_has_changed(project: Project) -> None:
    project.validate()
    assert not project.remembered("--no-cache")
    assert project.remembered()


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
    assert project.remembered()
    change(project)
    assert project.validate().code == 2


CHANGED = {
    "environment variable changed": environment("TEAM", "other"),
    "bundle's own tests appeared": edit("provisioners/greeter/test_greeter.py", ""),
    "tests are a file now": lambda project: (remove("web/tests")(project), edit("web/tests", "")(project)),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_what_changes_a_template_makes_it_look_again(project: Project, change: Callable[[Project], object]) -> None:
    project.validate()
    change(project)
    assert not project.remembered()
    assert project.remembered()


def test_an_unrelated_file_changes_nothing(project: Project) -> None:
    project.validate()
    project.write("web/README", "hello\n")
    project.write("web/setup.sh", "#!/bin/sh\necho other content, the same verdict\n")
    project.cli.env["BAKE_VAR_of_another_template"] = "1"
    assert project.remembered()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (("--var=stage=prod",), ("--var=stage=proud",)),
        (("--var=title=Hello",), ("--var=title=hello",)),
        (("--only=shop",), ("--only=other",)),
        (("--except=other",), ("--except=shop",)),
    ],
)
def test_each_set_of_options_has_its_own_verdict(project: Project, good: tuple[str], bad: tuple[str]) -> None:
    assert project.validate(*good).code == 0
    assert project.remembered(*good)
    assert project.validate(*bad).code == 2
    assert not project.remembered()


def test_a_variable_file_counts_by_its_content(project: Project) -> None:
    option = f"--var-file={project / 'web/prod.yaml'}"
    assert project.validate(option).code == 0
    assert project.remembered(option)
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
    assert project.remembered()
    (project / "web/disk.qcow2").unlink()
    assert project.validate().code == 2


UNSURE = {
    "git": TEMPLATE.replace("${{ env.TEAM }}", "${{ git.commit }}"),
    "a tree that a step picks from": TEMPLATE.replace("{script: setup.sh}", "echo") .replace(
        "  - uses: greeter", "  - file: {source: tests/, destination: /srv, exclude: ['*.pyc']}"
    ),
    "a home directory": TEMPLATE + "communicator: {ssh_private_key_file: ~root}\n",
}  # fmt: skip


@pytest.mark.parametrize("text", UNSURE.values(), ids=UNSURE.keys())
def test_what_cannot_be_seen_cheaply_is_not_remembered(project: Project, text: str) -> None:
    shutil.rmtree(project / ".git")
    git = ["git", "-C", str(project.directory), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-qm", "first", "--allow-empty"], check=True)
    project.write("web/web.yaml", text)
    assert project.validate().code == 0
    assert not project.remembered()


def test_a_plugin_may_look_at_anything_so_it_is_asked_each_time(project: Project, tmp_path: Path) -> None:
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
        assert not project.remembered()
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
    assert not project.remembered(*options)
    assert list(project.cli.home.rglob("validated/*")) == []


def test_other_values_are_kept_as_keyed_hashes_only(project: Project) -> None:
    project.cli.env["TEAM"] = "a-quiet-team"
    project.validate("--var=title=A quiet title")
    (kept,) = project.cli.home.rglob("validated/*")
    assert "quiet" not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600 or kept.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["", "{}", "[]", "null", '{"code": 1}', "\0"])
def test_a_damaged_memory_is_no_memory(project: Project, damage: str) -> None:
    project.validate()
    (kept,) = project.cli.home.rglob("validated/*")
    kept.write_text(damage)
    assert not project.remembered()
    assert project.remembered()


def test_another_bake_looks_for_itself(project: Project) -> None:
    """An upgrade, and an edit in a checkout, both show in what the note says of the code."""
    project.validate()
    (kept,) = project.cli.home.rglob("validated/*")
    found = json.loads(kept.read_text())
    for name, value in (("code", "0" * 64), ("libraries", {file: [1, 2, 3] for file in found["libraries"]})):
        kept.write_text(json.dumps(found | {name: value}))
        assert not project.remembered()


def test_a_home_that_nothing_can_be_written_to_works(project: Project) -> None:
    project.cli.home.mkdir()
    (project.cli.home / "cache").write_text("no directory")
    assert [project.validate().code, project.validate().code] == [0, 0]


def test_the_memory_stays_small(tmp_path: Path) -> None:
    home = Home.from_environment({"BAKE_HOME": str(tmp_path)})
    home.data.mkdir()
    (home.data / "secret.key").write_bytes(bytes(32))
    verdicts = Verdicts(home, {})
    for number in range(MOST + 10):
        verdicts.keep([number], Observed(), [{"name": str(number), "version": "1"}])
    assert len(list((home.cache / "validated").iterdir())) < MOST
    assert verdicts.find([MOST + 9]) == [{"name": str(MOST + 9), "version": "1"}]
