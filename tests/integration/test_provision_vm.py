"""Steps on a real machine: one is booted for all tests of this file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.build.seal import Rule, seal_script
from baker.build.verify import verify
from baker.core.errors import StepError
from baker.core.events import Memory, Reporter
from baker.template.load import load
from baker.template.model import TestinfraVerify
from tests.support.documents import write_examples
from tests.support.machine import Guest, booted

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("provision")]


@pytest.fixture(scope="module")
def _guest(baked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    directory = tmp_path_factory.mktemp("provision")
    with booted(baked_home, "debian-13", directory) as running:
        yield Guest(running.communicator, directory, directory / "scratch")


@pytest.fixture
def guest(_guest: Guest, tmp_path: Path) -> Guest:
    _guest.base = tmp_path
    return _guest


def test_shell_as_a_user_with_arguments_environment_and_directory(guest: Guest) -> None:
    guest.step("shell", "id -u builder >/dev/null 2>&1 || useradd --create-home builder")
    guest.step(
        "shell",
        {
            "inline": ['echo "$(id -un) $1 $PLACE $PWD $HOME"'],
            "user": "builder",
            "args": ["two words"],
            "env": {"PLACE": "$x 'y'"},
            "cwd": "/srv",
        },
    )
    assert guest.output == ["builder two words $x 'y' /srv /home/builder"]


def test_a_failing_line_ends_a_script(guest: Guest) -> None:
    with pytest.raises(StepError, match="exit code 1") as caught:
        guest.step("shell", ["echo before", "false", "echo after"])
    assert caught.value.output == ("before",)
    assert guest.step("shell", {"inline": "exit 7", "valid_exit_codes": [0, 7]}).exit_code == 7


def test_a_script_in_another_language_leaves_nothing_behind(guest: Guest) -> None:
    (guest.base / "odd-little-tool.py").write_text("#!/usr/bin/env python3\nimport sys, getpass\nprint(getpass.getuser(), sys.argv[1:])\n")
    guest.step("shell", {"script": "odd-little-tool.py", "args": ["--fast", "a b"], "user": "nobody"})
    assert guest.output == ["nobody ['--fast', 'a b']"]
    assert guest.ask("find / -xdev -name '*odd-little-tool.py' 2>/dev/null; ls /run/bake 2>/dev/null || true") == ""


def test_a_hanging_step_is_ended_in_the_guest_too(guest: Guest) -> None:
    with pytest.raises(StepError, match="5 s"):
        guest.step("shell", "sleep 3141", timeout=5.0, retries=3)
    assert guest.ask("pgrep -f 'sleep 3141' || true") == ""


def test_a_step_that_works_the_second_time(guest: Guest) -> None:
    flaky = "if [ -e /run/tried ]; then echo good; else touch /run/tried; exit 100; fi"
    assert guest.step("shell", flaky, retries=2).attempts == 2


def test_files_trees_and_templates(guest: Guest) -> None:
    (guest.base / "site/deep").mkdir(parents=True)
    (guest.base / "site/index.html").write_text("hi")
    (guest.base / "site/deep/run").write_text("#!/bin/sh\n")
    (guest.base / "site/deep/run").chmod(0o770)
    (guest.base / "site/link").symlink_to("index.html")
    (guest.base / "page.j2").write_text("{{ title }} and {{ n + 1 }}\n")
    guest.step("file", {"source": "site/", "destination": "/srv/site", "owner": "www-data", "directory_mode": "0750"})
    guest.step("file", {"template": "page.j2", "destination": "/srv/site/", "vars": {"title": 'It\'s "x"', "n": 1}, "mode": "0600"})
    listed = guest.ask("cd /srv/site && stat -c '%n %a %U:%G %F' . deep deep/run index.html link page && cat page")
    assert listed.splitlines() == [
        ". 750 www-data:www-data directory",
        "deep 750 www-data:www-data directory",
        "deep/run 755 www-data:www-data regular file",
        "index.html 644 www-data:www-data regular file",
        "link 777 www-data:www-data symbolic link",
        "page 600 root:root regular file",
        'It\'s "x" and 2',
    ]


def test_a_tree_over_the_root_leaves_directories_as_they_are(guest: Guest) -> None:
    before = guest.ask("stat -c '%a %U' / /etc /bin")
    (guest.base / "root/etc/app").mkdir(parents=True)
    (guest.base / "root/etc/app/conf").write_text("x")
    guest.step("file", {"source": "root/", "destination": "/"})
    assert guest.ask("stat -c '%a %U' / /etc /bin") == before
    assert guest.ask("cat /etc/app/conf") == "x"


def test_a_large_file(guest: Guest) -> None:
    (guest.base / "blob").write_bytes(b"0123456789abcdef" * (1 << 18))
    guest.step("file", {"source": "blob", "destination": "/opt/data/large", "owner": "nobody"})
    assert guest.ask("stat -c '%s %U:%G' /opt/data/large; tail -c 4 /opt/data/large") == "4194304 nobody:nogroup\ncdef"


def test_ansible_over_our_connection(guest: Guest) -> None:
    (guest.base / "site.yaml").write_text(
        "- hosts: web\n  gather_facts: false\n  tasks:\n    - name: greet\n"
        "      ansible.builtin.copy: {content: '{{ greeting }}', dest: /etc/greeting, mode: '0600'}\n"
    )
    config = {"playbook": "site.yaml", "extra_vars": {"greeting": "hello {host} 's3cret'"}, "groups": "web", "idempotent": True}
    guest.step("ansible", config, timeout=500.0)
    assert guest.ask("cat /etc/greeting") == "hello {host} 's3cret'"
    assert "hosts" not in guest.ask("ls -A /root/.ansible 2>/dev/null || true")


def test_ansible_that_is_not_idempotent_names_the_task(guest: Guest) -> None:
    (guest.base / "site.yaml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: harmless\n      ansible.builtin.command: 'true'\n"
        "      changed_when: false\n    - name: always anew\n      ansible.builtin.shell: date > /etc/now\n"
    )
    with pytest.raises(StepError, match="not idempotent: its second run changed always anew"):
        guest.step("ansible", {"playbook": "site.yaml", "idempotent": True}, timeout=500.0)


def test_ansible_that_fails(guest: Guest) -> None:
    (guest.base / "site.yaml").write_text("- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: 'false'\n")
    with pytest.raises(StepError, match=r"ansible-playbook .* exit code 2"):
        guest.step("ansible", {"playbook": "site.yaml"}, timeout=500.0)


def test_the_bundle_of_the_documentation_passes_its_own_test(guest: Guest, tmp_path: Path) -> None:
    write_examples("bundles.md", tmp_path)
    template = load(tmp_path / "greeter.yaml")[0]
    for step in template.provisioners:
        guest.base = step.base_dir
        guest.step(step.kind, step.config.model_dump(exclude_unset=True))
    report = verify(
        template.verify, guest.communicator.ssh_config, guest.communicator.host, scratch=tmp_path / "v", report=Reporter(Memory())
    )
    assert [(outcome.name, outcome.outcome) for outcome in report.outcomes] == [
        ("greeting/test_greeting.py::test_the_message_is_shown", "passed")
    ]


def test_verification_waits_until_the_services_are_up_and_sees_the_machine(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_up(host): assert host.check_output('systemctl is-system-running') in ('running', 'degraded')\n"
        "def test_root(host): assert host.user().name == 'root'\n"
    )
    check = TestinfraVerify(testinfra=(Path("test_it.py"),), base_dir=tmp_path)
    report = verify([check], guest.communicator.ssh_config, guest.communicator.host, scratch=tmp_path / "v", report=Reporter(Memory()))
    assert report.passed, report.junit


def test_a_failing_rule_of_sealing_is_named_by_the_script_itself(guest: Guest) -> None:
    rules = [Rule("first", "x", "x", "true"), Rule("second", "x", "x", "false"), Rule("third", "x", "x", "echo never")]
    done = guest.communicator.run(seal_script(rules))
    assert (done.exit_code, done.stdout) == (1, "seal-failed\tsecond\n")


@pytest.mark.parametrize("command", ["systemctl reboot", "echo b > /proc/sysrq-trigger; sleep 60"])
def test_a_reboot_in_a_step(guest: Guest, command: str) -> None:
    before = guest.communicator.boot_id()
    guest.step("shell", {"inline": ["sync", command], "expect_disconnect": True}, timeout=700.0)
    assert guest.communicator.boot_id() != before
    guest.step("shell", "echo back")
    assert guest.output == ["back"]


def test_a_step_that_might_have_rebooted(guest: Guest) -> None:
    before = guest.communicator.boot_id()
    guest.step("shell", {"inline": "true", "expect_disconnect": True}, timeout=100.0)
    assert guest.communicator.boot_id() == before
