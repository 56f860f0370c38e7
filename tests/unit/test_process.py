"""The one place that runs commands on the host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from baker.core import process
from baker.core.errors import HostError
from baker.upkeep.sweep import end_processes, processes_of
from tests.support.until import until


def test_output_and_exit_code_come_back() -> None:
    result = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_a_failed_command_is_named_with_what_it_said() -> None:
    with pytest.raises(process.CommandError) as caught:
        process.run(["sh", "-c", "echo no such thing >&2; exit 4"], what="lay out the disk")
    assert str(caught.value).splitlines()[0] == "lay out the disk failed with exit code 4"
    assert "no such thing" in str(caught.value)


def test_a_missing_program_is_a_fault_of_the_host() -> None:
    with pytest.raises(HostError, match="no-such-program") as error:
        process.run(["no-such-program"])
    assert error.value.code == "host.tool-missing"


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(HostError, match="apt-get install qemu-utils"):
        process.need("no-such-qemu-img", package="qemu-utils")


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(process.CommandTimeout, match=r"^sh .*0\.5 s") as error:
        process.run(["sh", "-c", f"sleep 60 & echo $! > {pidfile}; wait"], timeout=0.5)
    assert error.value.code == "host.command-timeout"
    child = int(pidfile.read_text())
    until(lambda: not _runs(child), 5, "the child has ended")


def test_lines_stream_as_they_come_and_input_reaches_the_command() -> None:
    lines: list[str] = []
    process.run(["cat"], input="one\ntwo\n", on_line=lines.append)
    assert lines == ["one", "two"]


def test_a_large_input_and_output_do_not_block_each_other() -> None:
    data = b"x" * 3_000_000
    assert len(process.run(["cat"], input=data).stdout) == len(data)


def test_children_get_a_clean_environment() -> None:
    env = {**os.environ, "SOME_TOKEN": "t0ps3cret"}
    code = "from baker.core import process; print(process.run(['env']).stdout)"
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "t0ps3cret" not in out
    assert "LC_ALL=C.UTF-8" in out


def test_what_carries_a_builds_id_is_ended_and_nothing_else() -> None:
    marked = subprocess.Popen(["sleep", "60"], env={**os.environ, process.BUILD_ID_VARIABLE: "feedfacecafe"})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, process.BUILD_ID_VARIABLE: "feedfacecaff"})
    try:
        until(lambda: marked.pid in set(processes_of("feedfacecafe")), 5, "the process has its environment")
        assert end_processes("feedfacecafe") == [marked.pid]
        assert marked.wait(5) == -15
        assert other.poll() is None
    finally:
        for child in (marked, other):
            child.kill()
            child.wait()


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
