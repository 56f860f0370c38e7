from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from baker.build.execute import StepResult, execute
from baker.core.clock import Clock
from baker.core.errors import StepError
from baker.core.events import Memory, Message, Output, Reporter
from baker.core.secrets import Secrets
from baker.machines.ssh.communicator import Disconnected, GuestTimeout
from baker.provision import registry
from baker.provision.base import OnHost, Operation, StepConfig
from baker.render.mask import MaskingSink
from baker.template.model import Step
from tests.support.fakes import FakeClock, FakeCommunicator, ended
from tests.support.plugins import on_path


class Run:
    """One execution with everything faked but the host."""

    def __init__(self, tmp_path: Path) -> None:
        self.guest = FakeCommunicator()
        self.clock = FakeClock()
        self.events = Memory()
        self.scratch = tmp_path / "scratch"
        self.base = tmp_path / "base"
        self.base.mkdir()

    def __call__(self, kind: str, config: Any, *, env: dict[str, str] | None = None, secret: str = "", **step: Any) -> StepResult:
        secrets = Secrets({"secret": secret} if secret else {})
        return execute(
            Step(
                name="setup",
                kind=kind,
                config=registry.get(kind).Config.model_validate(config),
                base_dir=self.base,
                origin="web.yaml:12:5",
                **step,
            ),
            self.guest,
            Reporter(MaskingSink(self.events, secrets), "b1"),
            scratch=self.scratch,
            env=env,
            mask=secrets.mask,
            clock=Clock(self.clock.now, self.clock.date, self.clock.sleep),
        )

    @property
    def output(self) -> list[str]:
        return [event.line for event in self.events.events if isinstance(event, Output)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_step_that_succeeds_reports_its_output(run: Run) -> None:
    run.guest.answers["make"] = ended(0, "one\ntwo\n", "careful\n")
    result = run("shell", "make")
    assert (result.exit_code, result.attempts, result.tail) == (0, 1, ("one", "two", "careful"))
    assert run.output == ["one", "two", "careful"]
    assert all(event.step == "setup" for event in run.events.events if isinstance(event, Output))


def test_the_error_names_step_place_exit_code_and_last_lines(run: Run) -> None:
    run.guest.answers["make"] = ended(2, "".join(f"line {n}\n" for n in range(100)), "make: no rule\n")
    with pytest.raises(StepError) as caught:
        run("shell", "make")
    assert caught.value.code == "step.failed"
    assert [fact for fact in ("setup", "web.yaml:12:5", "exit code 2") if fact not in caught.value.message] == []
    assert (caught.value.step, caught.value.exit_code_of_step) == ("setup", 2)
    assert caught.value.output[-1] == "make: no rule"
    assert len(caught.value.output) == 20


def test_expected_exit_codes(run: Run) -> None:
    run.guest.answers["grep"] = ended(1)
    assert run("shell", {"inline": "grep x", "valid_exit_codes": [0, 1]}).exit_code == 1
    run.guest.answers["grep"] = ended(0)
    with pytest.raises(StepError, match=r"exit code 0 \(expected 1, 2\)"):
        run("shell", {"inline": "grep x", "valid_exit_codes": [2, 1]})


def test_retries_until_it_succeeds_with_growing_pauses(run: Run) -> None:
    run.guest.answers["fetch"] = [ended(100), ended(100), ended(100), ended(0)]
    result = run("shell", "fetch", retries=5)
    assert result.attempts == 4
    assert run.clock.slept == [1, 2, 4]
    warnings = [event.text for event in run.events.events if isinstance(event, Message)]
    assert [fact for fact in ("setup", "1 of 6", "exit code 100", "1 s") if fact not in warnings[0]] == []


def test_gives_up_after_its_retries(run: Run) -> None:
    run.guest.answers["fetch"] = ended(100)
    with pytest.raises(StepError, match=r"3 attempts.*exit code 100"):
        run("shell", "fetch", retries=2)
    assert len(run.guest.calls) == 3


def test_pause_before(run: Run) -> None:
    run("shell", "x", pause_before=7.5)
    assert run.clock.slept == [7.5]


def test_the_timeout_is_for_the_whole_step(run: Run) -> None:
    def slow(call: Any) -> Any:
        run.clock.time += 4
        return ended(1)

    run.guest.answers["slow"] = slow
    with pytest.raises(StepError, match="exit code 1"):
        run("shell", "slow", retries=9, timeout=10.0)
    assert [call.timeout for call in run.guest.calls] == [10.0, 5.0]  # 4 s of work and 1 s of pause are gone; 2 s more are too many


def test_no_operation_begins_after_the_timeout(run: Run) -> None:
    def slow(call: Any) -> Any:
        run.clock.time += 11
        return ended(0)

    run.guest.answers["slow"] = slow
    for name in ("a", "b"):
        (run.base / name).write_text("slow")
    with pytest.raises(StepError, match="10 s") as caught:
        run("shell", {"scripts": ["a", "b"]}, timeout=10.0)
    assert caught.value.code == "step.timeout"
    assert len(run.guest.calls) == 1


def test_a_hanging_command_is_not_tried_again(run: Run) -> None:
    run.guest.answers["sleep"] = GuestTimeout("60 s")
    with pytest.raises(StepError, match="60 s") as caught:
        run("shell", "sleep inf", timeout=60.0, retries=3)
    assert caught.value.code == "step.timeout"
    assert len(run.guest.calls) == 1


def test_a_lost_connection_is_an_error_with_a_hint(run: Run) -> None:
    run.guest.answers["reboot"] = Disconnected()
    with pytest.raises(StepError) as caught:
        run("shell", "reboot")
    assert caught.value.code == "step.connection-lost"
    assert "expect_disconnect: true" in caught.value.hint


def test_a_lost_connection_is_opened_again_before_the_next_try(run: Run) -> None:
    run.guest.answers["flaky"] = [Disconnected(), ended(0)]
    assert run("shell", "flaky", retries=1).attempts == 2
    assert (run.guest.disconnects, len(run.guest.waits)) == (1, 1)


def test_a_reboot_that_cuts_the_connection(run: Run) -> None:
    run.guest.answers["reboot"] = Disconnected()
    run.guest.boot_ids = ["boot-1", "boot-1", "boot-2"]  # before; still answering while it goes down; after
    result = run("shell", {"inline": "reboot", "expect_disconnect": True})
    assert result.exit_code is None
    assert len(run.guest.waits) == 2


def test_a_reboot_that_begins_after_the_command_has_ended(run: Run) -> None:
    run.guest.answers["systemctl is-system-running"] = ended(1, "stopping\n")
    run.guest.answers["systemctl reboot"] = ended(0)
    run.guest.boot_ids = ["boot-1", "boot-2"]
    run("shell", {"inline": "systemctl reboot", "expect_disconnect": True})
    assert len(run.guest.waits) == 1


def test_a_command_killed_by_its_own_reboot_has_not_failed(run: Run) -> None:
    run.guest.answers["systemctl is-system-running"] = Disconnected()
    run.guest.answers["reboot"] = ended(143)
    run.guest.boot_ids = ["boot-1", "boot-2"]
    run("shell", {"inline": "reboot; sleep 60", "expect_disconnect": True})


def test_a_command_that_may_reboot_but_does_not(run: Run) -> None:
    run.guest.answers["systemctl is-system-running"] = ended(0, "running\n")
    run("shell", {"inline": "test -e /reboot-required && reboot || true", "expect_disconnect": True})
    assert run.guest.waits == []
    run.guest.answers["test"] = ended(5)
    with pytest.raises(StepError, match="exit code 5"):
        run("shell", {"inline": "test", "expect_disconnect": True})


def test_a_machine_that_never_reboots(run: Run) -> None:
    run.guest.answers["reboot"] = Disconnected()
    with pytest.raises(StepError) as caught:
        run("shell", {"inline": "reboot", "expect_disconnect": True}, timeout=30.0)
    assert caught.value.code == "step.reboot-timeout"


def test_the_environment_of_commands(run: Run) -> None:
    run("shell", {"inline": "x", "env": {"A": "1"}}, env={"SOURCE_DATE_EPOCH": "7"})
    assert run.guest.calls[0].env == {"DEBIAN_FRONTEND": "noninteractive", "SOURCE_DATE_EPOCH": "7", "A": "1"}


def test_a_file_gets_its_owners_login_group(run: Run) -> None:
    run.guest.answers["id -gn -- nobody"] = ended(0, "nogroup\n")
    run("file", {"content": "x", "destination": "/etc/x", "owner": "nobody"})
    assert run.guest.files["/etc/x"] == (b"x", 0o644, "nobody", "nogroup")


def test_a_user_who_does_not_exist(run: Run) -> None:
    run.guest.answers["id -gn"] = ended(1)
    with pytest.raises(StepError, match="app") as caught:
        run("file", {"content": "x", "destination": "/etc/x", "owner": "app"})
    assert caught.value.code == "step.no-such-user"


def test_a_tree_becomes_a_tar_with_owners_modes_and_one_time(run: Run) -> None:
    (run.base / "site/sub").mkdir(parents=True)
    (run.base / "site/sub/run").write_text("x")
    (run.base / "site/sub/run").chmod(0o775)
    (run.base / "site/index.html").write_text("hi")
    (run.base / "site/link").symlink_to("index.html")
    (run.base / "site/same.html").hardlink_to(run.base / "site/index.html")
    run.guest.answers["test -d"] = ended(1)
    run("file", {"source": "site/", "destination": "/srv/www", "owner": "33", "group": "adm"}, env={"SOURCE_DATE_EPOCH": "1700000000"})
    tree = run.guest.trees["/srv/www"]
    assert list(tree) == [".", "index.html", "link", "same.html", "sub", "sub/run"]
    assert {name: (entry.mode, entry.uid, entry.uname, entry.gname, entry.mtime) for name, entry in tree.items()} == {
        ".": (0o755, 33, "", "adm", 1700000000),
        "index.html": (0o644, 33, "", "adm", 1700000000),
        "link": (0o777, 33, "", "adm", 1700000000),
        "same.html": (0o644, 33, "", "adm", 1700000000),
        "sub": (0o755, 33, "", "adm", 1700000000),
        "sub/run": (0o755, 33, "", "adm", 1700000000),
    }
    assert tree["same.html"].isreg() and tree["same.html"].size == 2
    assert not any(run.scratch.iterdir())


def test_a_directory_that_exists_keeps_its_owner_and_mode(run: Run) -> None:
    (run.base / "root/etc").mkdir(parents=True)
    run("file", {"source": "root/", "destination": "/"})
    assert list(run.guest.trees["/"]) == ["etc"]


def test_a_large_file_goes_as_a_tree_under_its_new_name(run: Run) -> None:
    (run.base / "disk.bin").write_bytes(b"x" * (2 << 20))
    run("file", {"source": "disk.bin", "destination": "/opt/data/blob", "mode": "0400"})
    entry = run.guest.trees["/opt/data"]["blob"]
    assert (entry.size, entry.mode, entry.uname) == (2 << 20, 0o400, "root")


def test_a_mistake_in_a_template_is_a_step_error(run: Run) -> None:
    (run.base / "motd.j2").write_text("{{ nobody }}")
    with pytest.raises(StepError, match=r"motd.j2:1: 'nobody' is undefined") as caught:
        run("file", {"template": "motd.j2", "destination": "/etc/motd"})
    assert caught.value.code == "step.template-render"


def test_the_error_of_a_step_has_the_code_of_its_cause(run: Run) -> None:
    """A command that fails is `step.failed`; what bake itself reports, of this host or of the step, keeps its code."""
    run.guest.answers["make"] = ended(2)
    wrong: dict[str, tuple[str, Any]] = {
        "step.failed": ("shell", {"inline": "make"}),
        "step.file-unreadable": ("shell", {"script": "gone.sh"}),
        "step.file-missing": ("file", {"source": "gone", "destination": "/x"}),
    }
    codes = []
    for kind, config in wrong.values():
        with pytest.raises(StepError) as caught:
            run(kind, config)
        codes.append(caught.value.code)
    assert codes == list(wrong)


def test_short_lines_of_a_secret_are_masked_in_output_and_error(run: Run) -> None:
    run.guest.answers["login"] = ended(1, "ok }\n{\n7411\n}\n")
    with pytest.raises(StepError) as caught:
        run("shell", {"inline": "login"}, secret="{\n7411\n}\n")
    assert run.output == list(caught.value.output) == ["ok }", "***", "***", "***"]


def test_secrets_are_masked_in_output_and_error(run: Run) -> None:
    run.guest.answers["login"] = ended(1, "token is tops3cret!\n")
    with pytest.raises(StepError) as caught:
        run("shell", {"inline": "login", "env": {"TOKEN": "tops3cret!"}}, secret="tops3cret!", retries=1)
    assert run.output == ["token is ***", "token is ***"]
    assert "tops3cret!" not in str(caught.value) + repr(run.events.events) + repr(caught.value.output)


# -- commands on this host, with a kind of our own that yields one --


class HostConfig(StepConfig):
    script: str
    files: dict[str, str] = Field(default_factory=dict)
    expect: str = ""
    refuse: str = ""


class HostKind:
    """Runs a Python script on this host."""

    name = "on-host"
    Config = HostConfig

    def inputs(self, config: Any, base_dir: Path) -> list[Path]:
        return []

    def operations(self, config: Any, context: Any) -> list[Operation]:
        argv = (sys.executable, "-c", config.script, "{host}", "{files}", "{ssh_config}")
        return [OnHost(argv, files=config.files, env={"WHERE": "{host}:{files}"}, expect=config.expect, refuse=config.refuse)]


@pytest.fixture
def host_run(run: Run, tmp_path: Path) -> Run:
    """`run` with the kind `on-host`, found as a plugin is: by the entry points of an installed distribution."""
    info = tmp_path / "plugins" / "hostkind-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostkind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[baker.provisioners]\non-host = {__name__}:HostKind\n")
    return run


def test_host_command_gets_its_files_and_names(host_run: Run, tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; d = pathlib.Path(sys.argv[2]); f = d / 'vars.json';"
        "modes = [oct(p.stat().st_mode & 0o777) for p in (f, d)];"
        "print(sys.argv[1], f.read_text(), *modes, os.environ['WHERE'] == f'guest:{d}')"
    )
    with on_path(tmp_path / "plugins"):
        result = host_run("on-host", {"script": script, "files": {"vars.json": '{"host": "{host}"}'}})
    assert result.tail == ('guest {"host": "{host}"} 0o600 0o700 True',)
    assert not any(host_run.scratch.iterdir())


def test_host_command_that_fails(host_run: Run, tmp_path: Path) -> None:
    with on_path(tmp_path / "plugins"), pytest.raises(StepError, match="exit code 4") as caught:
        host_run("on-host", {"script": "import sys; print('unreachable', file=sys.stderr); sys.exit(4)"})
    assert (caught.value.exit_code_of_step, caught.value.code) == (4, "step.failed")
    assert caught.value.output == ("unreachable",)


def test_host_command_that_hangs(host_run: Run, tmp_path: Path) -> None:
    with on_path(tmp_path / "plugins"), pytest.raises(StepError, match=r"0\.5 s") as caught:
        host_run("on-host", {"script": "import time; time.sleep(60)"}, timeout=0.5, retries=3)
    assert caught.value.code == "step.timeout"


@pytest.mark.parametrize(
    ("printed", "expect", "refuse", "message"),
    [
        ("ok changed=0", r"changed=0", "", None),
        ("ok changed=1", r"changed=0", "", "output"),
        ("x\nTASK [a b]\nchanged", "", r"TASK \[(.*)\]\nchanged", "a b"),
    ],
)
def test_host_command_whose_output_matters(
    host_run: Run, tmp_path: Path, printed: str, expect: str, refuse: str, message: str | None
) -> None:
    config = {"script": f"print({printed!r})", "expect": expect, "refuse": refuse}
    with on_path(tmp_path / "plugins"):
        if message is None:
            assert host_run("on-host", config).exit_code == 0
        else:
            with pytest.raises(StepError, match=message):
                host_run("on-host", config)
