from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from baker.build.execute import execute
from baker.core.errors import TemplateError, UsageError
from baker.core.events import Memory, Reporter
from baker.provision import registry
from baker.template.load import load
from tests.support.documents import write_examples
from tests.support.fakes import FakeCommunicator, ended
from tests.support.plugins import on_path, write_distribution


def test_the_plugin_of_the_documentation(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    write_examples("plugins.md", site)
    project = tomllib.loads((site / "pyproject.toml").read_text())["project"]
    write_distribution(site, project["name"], registry.GROUP, project["entry-points"][registry.GROUP])
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/deploy.pub").write_text("ssh-ed25519 AAAA deploy\n")
    (tmp_path / "t.yaml").write_text(
        "schema: 1\nname: t\nversion: 1.0.0\nsource: {image: debian-13}\n"
        "provisioners:\n  - user: {name: deploy, groups: [adm, systemd-journal], authorized_keys: keys/deploy.pub}\n"
    )
    guest = FakeCommunicator()
    guest.answers["id -gn"] = ended(0, "deploy\n")
    with on_path(site):
        assert registry.names() == ("shell", "file", "ansible", "user")
        step = load(tmp_path / "t.yaml")[0].provisioners[0]
        assert list(registry.get("user").inputs(step.config, step.base_dir)) == [tmp_path / "keys/deploy.pub"]
        execute(step, guest, Reporter(Memory()), scratch=tmp_path / "scratch")
    assert "useradd" in guest.calls[0].script
    assert guest.calls[0].env["GROUPS_OF_USER"] == "adm systemd-journal"
    assert guest.files["/home/deploy/.ssh/authorized_keys"] == (b"ssh-ed25519 AAAA deploy\n", 0o600, "deploy", "deploy")


def test_without_the_package_the_kind_is_unknown() -> None:
    assert registry.names() == ("shell", "file", "ansible")
    with pytest.raises(UsageError, match="'user'") as error:
        registry.get("user")
    assert error.value.code == "plugin.unknown"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise RuntimeError('no licence')", r"'broken' of the package broken \(broken_plugin:Kind\) .*: no licence"),
        ("", "'broken' .* has no attribute 'Kind'"),
        ("class Kind:\n    pass\n", r"'broken' .* lacks inputs\(\), operations\(\)"),
        ("class Kind:\n    def inputs(self): ...\n    def operations(self): ...\n", "'broken' lacks Config"),
    ],
)
def test_a_broken_plugin_says_what_is_wrong_with_it(tmp_path: Path, module: str, message: str) -> None:
    name = f"broken_plugin_{abs(hash(module))}"  # modules stay imported
    (tmp_path / f"{name}.py").write_text(module)
    write_distribution(tmp_path, "broken", registry.GROUP, {"broken": f"{name}:Kind"})
    with on_path(tmp_path), pytest.raises(UsageError, match=message.replace("broken_plugin:", f"{name}:")) as error:
        registry.get("broken")
    assert error.value.code == "plugin.broken"


def test_a_broken_plugin_is_a_problem_at_the_step_that_names_it(tmp_path: Path) -> None:
    write_distribution(tmp_path, "broken", registry.GROUP, {"broken": "no_such_module:Kind"})
    (tmp_path / "t.yaml").write_text(
        "schema: 1\nname: t\nversion: 1.0.0\nsource: {image: debian-13}\nprovisioners:\n  - broken: {}\n  - brokn: {}\n"
    )
    with on_path(tmp_path), pytest.raises(TemplateError) as error:
        load(tmp_path / "t.yaml")
    assert [(problem.line, problem.column, problem.code) for problem in error.value.problems] == [
        (6, 5, "plugin.broken"),
        (7, 5, "plugin.unknown"),
    ]
    assert "no_such_module" in error.value.problems[0].message
    assert error.value.problems[1].hint == "did you mean broken?"


def test_two_plugins_of_one_name_are_an_error_where_it_is_used(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_distribution(tmp_path, f"bake-{name}", registry.GROUP, {"user": f"bake_{name}:User"})
    with on_path(tmp_path):
        assert registry.names() == ("shell", "file", "ansible", "user")
        with pytest.raises(UsageError, match=r"'user': bake-one \(bake_one:User\) and bake-two \(bake_two:User\)") as error:
            registry.get("user")
    assert error.value.code == "plugin.duplicate"


def test_finding_a_built_in_kind_looks_at_no_package() -> None:
    code = (
        "import sys, baker.machines.registry as b, baker.release.targets.registry as r, baker.provision.registry as p\n"
        "b.get('libvirt'), r.get('ssm'), p.get('shell'), p.get('file')\n"
        "from baker.core.plugins import installed; sys.exit(installed.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plugin_does_not_replace_a_built_in_kind(tmp_path: Path) -> None:
    write_distribution(tmp_path, "other-shell", registry.GROUP, {"shell": "no_such_module:Shell"})
    with on_path(tmp_path):
        assert registry.get("shell").name == "shell"
        assert registry.names() == ("shell", "file", "ansible")


def test_the_bundle_of_the_documentation(tmp_path: Path) -> None:
    write_examples("bundles.md", tmp_path)
    template = load(tmp_path / "greeter.yaml")[0]
    guest = FakeCommunicator()
    for step in template.provisioners:
        execute(step, guest, Reporter(Memory()), scratch=tmp_path / "scratch")
    assert guest.files["/etc/motd"][0] == b"Welcome aboard\nLooked after by nobody in particular.\n"
    assert [check.testinfra for check in template.verify] == [(Path("test_greeting.py"),)]
    assert template.verify[0].vars["message"] == "Welcome aboard"


def test_every_shipped_bundle_is_documented_and_has_a_test() -> None:
    root = Path(__file__).parents[2]
    document = (root / "docs/bundles.md").read_text()
    bundles = [path.parent for path in sorted((root / "provisioners").glob("*/provisioner.yaml"))]
    assert len(bundles) >= 4
    for bundle in bundles:
        assert f"| `{bundle.name}` |" in document
        assert (bundle / f"test_{bundle.name.replace('-', '_')}.py").is_file()
