"""What people, programs and log files see of events."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from baker.cli.display import display
from baker.core import events
from baker.core.events import Event, Memory, Sink, from_json
from baker.core.secrets import Secrets
from baker.render.jsonlines import JsonLines
from baker.render.live import Live
from baker.render.logfile import LogFile
from baker.render.mask import MaskingSink, mask_event
from baker.render.plain import Plain
from baker.render.quiet import Quiet
from baker.render.terminal import Terminal
from baker.render.text import ago, cells, clean, cut, duration, size, table, when
from tests.support.fake_app import Screen

TTY = {"TERM": "xterm-256color", "COLUMNS": "80"}
DIGEST = "sha256:" + "ab" * 32


def started(build: str = "b1", name: str = "web", at: float = 1000.0) -> Event:
    return events.BuildStarted(build=build, template=f"/x/{name}.yaml", name=name, version="1.4.0", steps=("packages", "page"), at=at)


def built(build: str = "b1", name: str = "web", at: float = 1231.0) -> Event:
    return events.BuildFinished(
        build=build, name=name, version="1.4.0", status="built", seconds=231.2, image="a1b2c3d4e5f6", digest=DIGEST,
        size=118 << 20, verified=True, timings={"boot": 80.1, "provision": 72.0, "seal": 0.01}, at=at,
    )  # fmt: skip


def failing_step() -> list[Event]:
    return [
        started(),
        events.StageStarted(build="b1", stage="provision", at=1001.0),
        events.StepStarted(build="b1", index=1, total=2, step="packages", kind="shell", at=1002.0),
        events.Output(build="b1", line="Reading package lists...", step="packages", at=1003.0),
        events.Output(build="b1", line="E: Unable to locate package nginx-lite", stream="stderr", step="packages", at=1004.0),
        events.StepFinished(build="b1", index=1, step="packages", seconds=3.0, ok=False, exit_code=100, attempts=2, at=1005.0),
        events.StageFinished(build="b1", stage="provision", seconds=4.0, ok=False, at=1005.0),
        events.BuildFinished(
            build="b1", name="web", version="1.4.0", status="failed", seconds=5.0, error="it failed (web.yaml:12:5)", at=1006.0
        ),
    ]


def failing_boot() -> list[Event]:
    return [
        started(),
        events.StageStarted(build="b1", stage="boot", at=1001.0),
        events.Output(build="b1", line="\x1b[0;32mKernel panic - not syncing: no init found\x1b[0m", stream="console", at=1002.0),
        events.StageFinished(build="b1", stage="boot", seconds=300.0, ok=False, at=1301.0),
        events.BuildFinished(
            build="b1", name="web", version="1.4.0", status="failed", seconds=301.0, error="no answer within 300 s", at=1301.0
        ),
    ]


def plain(*shown: Event) -> tuple[str, str]:
    out, err = Screen(), Screen()
    sink = Plain(Terminal.of(out, {}), Terminal.of(err, {}))
    for event in shown:
        sink.emit(event)
    return out.getvalue(), err.getvalue()


def live(*shown: Event, columns: int = 80, env: dict[str, str] | None = None, verbose: bool = False) -> str:
    """What scrolled by on a terminal, and every picture drawn below, without colours."""
    screen = Screen(tty=True)
    environment = TTY | {"COLUMNS": str(columns)} | (env or {})
    terminal = Terminal.of(screen, environment)
    sink = Live(terminal, terminal, verbose=verbose, clock=lambda: shown[-1].at + 1)
    for event in shown:
        sink.emit(event)
    sink.close()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r20%\r100%", "100%"),
        ("done\r\n", "done"),
        ("a\tb", "a   b"),
        ("bell\x07 back\x08space \x9b1mcsi", "bell backspace 1mcsi"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("\x1bc\x1b[2Jgone", "gone"),
        ("größe ✓ 日本", "größe ✓ 日本"),
    ],
)
def test_a_guest_cannot_drive_the_terminal(line: str, shown: str) -> None:
    assert clean(line) == shown


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (123 << 20, "123 MiB"), (1 << 40, "1.0 TiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (62, "1m02s"), (7500, "2h05m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-22T20:45:50Z", "just now"),
        ("2026-11-22T20:40:00Z", "5 minutes ago"),
        ("2026-11-21T20:00:00Z", "1 day ago"),
        ("2024-01-01T00:00:00Z", "2 years ago"),
        ("2027-01-01T00:00:00Z", "in the future"),
        ("soon", "soon"),
    ],
)
def test_how_long_ago(moment: str, text: str) -> None:
    now = when("2026-11-22T20:45:51Z")
    assert now is not None
    assert ago(moment, now) == text


@pytest.mark.parametrize(("text", "limit", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("日本語", 4, "日…")])
def test_cutting_counts_cells(text: str, limit: int, shown: str) -> None:
    assert cut(text, limit) == shown
    assert cells(cut(text, limit)) <= limit


def test_a_table_fits_its_width() -> None:
    lines = table(["NAME", "N"], [["x" * 50, "1"], ["y", "100"]], width=20, right={1})
    assert all(cells(line) <= 20 for line in lines)
    assert lines[2].startswith("y ")
    assert lines[2].endswith("100")


# --- where it goes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tty", "env", "colored"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (True, {"TERM": "xterm", "CLICOLOR": "0"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (False, {"TERM": "xterm"}, False),
        (False, {"CLICOLOR_FORCE": "1"}, True),
        (False, {"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_when_there_are_colours(tty: bool, env: dict[str, str], colored: bool) -> None:
    assert ("\x1b" in Terminal.of(Screen(tty=tty), env).paint("x", "red")) is colored


def test_a_dumb_terminal_is_not_driven() -> None:
    assert not Terminal.of(Screen(tty=True), {"TERM": "dumb"}).interactive


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_signs_suit_the_encoding(encoding: str) -> None:
    terminal = Terminal.of(Screen(encoding=encoding), {})
    "".join(vars(terminal.glyphs).values()).encode(encoding)


# --- plain -----------------------------------------------------------------------------------------------------------


def test_plain_lines_have_the_time_since_the_start() -> None:
    out, _ = plain(started(), events.StageStarted(build="b1", stage="launch", detail="build", at=1075.0))
    assert out.splitlines() == ["   0.0s  web 1.4.0: build b1 of /x/web.yaml, 2 steps", "  1m15s  launch: build"]


def test_plain_output_has_no_control_characters() -> None:
    out, err = plain(*failing_step(), *failing_boot())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b]", out + err)


def test_plain_names_builds_once_there_are_several() -> None:
    out, _ = plain(
        started(), events.Output(build="b1", line="one", at=1001.0), started("b2", "db"), events.Output(build="b2", line="two", at=1002.0)
    )
    lines = out.splitlines()
    assert lines[1].endswith("  | one")
    assert "db: " in lines[3]
    assert lines[3].endswith("| two")


def test_a_transfer_is_a_line_every_ten_seconds() -> None:
    steps = [events.Progress(build="b1", label="download", done=i << 20, total=100 << 20, at=1000.0 + i) for i in range(101)]
    out, _ = plain(started(), *steps)
    lines = [line for line in out.splitlines() if "download" in line]
    assert len(lines) == 10
    assert lines[0].endswith("download: 10.0 MiB of 100 MiB (10%)")
    assert lines[-1].endswith("(100%)")


def test_a_failed_step_is_shown_with_its_last_output_on_stderr() -> None:
    _, err = plain(*failing_step())
    assert "web 1.4.0 failed in step 1/2 packages, exit code 100, 2 attempts, after 5.0s" in err
    assert "it failed (web.yaml:12:5)" in err
    assert re.search(r"last output:\n.*Reading package lists\.\.\.\n.*E: Unable to locate package nginx-lite\n", err)
    assert "bake logs b1" in err


def test_a_failed_boot_is_shown_with_the_console() -> None:
    _, err = plain(*failing_boot())
    assert "failed in boot after 5m01s" in err
    assert re.search(r"last lines of the console:\n.*Kernel panic - not syncing: no init found\n", err)


def test_a_failed_verification_is_shown_with_its_tests() -> None:
    test = events.TestFinished(
        build="b1", name="test_web.py::test_page", outcome="failed", seconds=1.0, message="def t():\nE  assert 1 == 2"
    )
    passed = events.TestFinished(build="b1", name="test_web.py::test_other", outcome="passed", seconds=1.0)
    end = events.BuildFinished(build="b1", name="web", version="1.4.0", status="failed", seconds=5.0, error="1 of 2 tests failed")
    _, err = plain(started(), passed, test, end)
    assert "✗ test_web.py::test_page" in err
    assert "E  assert 1 == 2" in err
    assert "test_other" not in err


def test_an_interrupted_build_is_short() -> None:
    end = events.BuildFinished(build="b1", name="web", version="1.4.0", status="interrupted", seconds=5.0, error="interrupted by signal 2")
    _, err = plain(started(), events.Output(build="b1", line="some output"), end)
    assert "web 1.4.0 interrupted after 5.0s" in err
    assert "last output" not in err


def test_success_ends_with_all_one_needs() -> None:
    out, err = plain(started(), built())
    for text in ("a1b2c3d4e5f6", DIGEST, "118 MiB", "verified", "boot 1m20s, provision 1m12s", "bake run web", "bake shell web"):
        assert text in out
    assert "seal" not in out
    assert err == ""


def test_unchanged_says_there_was_nothing_to_do() -> None:
    end = events.BuildFinished(
        build="b1", name="web", version="1.4.0", status="unchanged", seconds=0.3, image="a1", digest=DIGEST, verified=True
    )
    out, _ = plain(started(), end)
    assert "already there, nothing to do" in out


def test_debug_messages_are_for_debug() -> None:
    message = events.Message(build="b1", text="details", level="debug")
    assert "details" not in plain(started(), message)[0]


# --- live ------------------------------------------------------------------------------------------------------------


def test_live_shows_where_a_build_is() -> None:
    shown = live(*failing_step()[:4])
    last = shown.rstrip().splitlines()[-3:]
    assert re.search(r"provision +3\.0s", last[0])
    assert re.search(r"1/2 packages \(shell\) +2\.0s", last[1])
    assert "Reading package lists..." in last[2]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_live_lines_fit_the_terminal(columns: int) -> None:
    long = events.Output(build="b1", line="x" * 500, at=1004.0)
    name = events.StepStarted(build="b1", index=2, total=2, step="y" * 300, kind="shell", at=1004.0)
    load = events.Progress(build="b1", label="z" * 300, done=1 << 20, total=5 << 20, at=1005.0)
    shown = live(*failing_step()[:4], long, name, load, columns=columns)
    assert all(cells(line) <= columns for part in shown.splitlines() for line in part.split("\r"))


def test_live_shows_a_transfer_with_its_rate_and_what_is_left() -> None:
    steps = [events.Progress(build="b1", label="base.qcow2", done=i * 10 << 20, total=100 << 20, at=1001.0 + i) for i in range(5)]
    shown = live(started(), events.StageStarted(build="b1", stage="resolve", at=1000.0), *steps)
    assert re.search(r"base\.qcow2 .*40\.0 MiB of 100 MiB \(40%\), 10\.0 MiB/s, 6\.0s left", shown)


def test_live_has_one_line_per_build_when_there_are_several() -> None:
    where = [events.StageStarted(build=build, stage=stage, at=1001.0) for build, stage in (("b1", "seal"), ("b2", "launch"))]
    lines = live(started(), started("b2", "database"), *where).rstrip().splitlines()[-2:]
    assert re.search(r"web +seal +2\.0s", lines[0])
    assert re.search(r"database +launch +2\.0s", lines[1])


def test_live_ends_like_plain() -> None:
    shown = live(started(), built())
    assert DIGEST in shown
    assert "bake run web" in shown
    assert "E: Unable to locate package nginx-lite" in live(*failing_step())


def test_what_scrolled_by_names_the_stage_inside_of_a_stage() -> None:
    inner = [events.StageStarted(build="b1", stage="boot"), events.StageFinished(build="b1", stage="boot", seconds=39.0)]
    shown = live(started(), events.StageStarted(build="b1", stage="verify"), *inner)
    assert re.search(r"✓ verify: boot +39s", shown)


def test_verbose_shows_every_line() -> None:
    lines = [events.Output(build="b1", line=f"line {i}", at=1002.0) for i in range(5)]
    assert "line 2" not in live(started(), *lines, started("b2", "db"))
    assert "line 2" in live(started(), *lines, verbose=True)


def test_a_live_failure_goes_to_a_redirected_stderr() -> None:
    screen, log = Screen(tty=True), Screen()
    sink = Live(Terminal.of(screen, TTY), Terminal.of(log, TTY))
    for event in failing_step():
        sink.emit(event)
    sink.close()
    assert "nginx-lite" in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_the_terminal_is_given_back() -> None:
    screen = Screen(tty=True)
    sink = Live(Terminal.of(screen, TTY), Terminal.of(screen, TTY))
    sink.emit(started())
    assert screen.getvalue().endswith("\x1b[?25l") or "\x1b[?25l" in screen.getvalue()
    with sink.suspended():
        assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")
    sink.close()
    sink.close()
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_many_threads_may_emit() -> None:
    screen = Screen(tty=True)
    sink = Live(Terminal.of(screen, TTY), Terminal.of(screen, TTY))

    def work(build: str) -> None:
        sink.emit(started(build, build))
        for number in range(200):
            sink.emit(events.Output(build=build, line=f"line {number}"))
        sink.emit(built(build, build))

    threads = [threading.Thread(target=work, args=(f"b{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sink.close()
    assert screen.getvalue().count("baked in") == 4


class Closed(Screen):
    """A stream whose other end is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_terminal_does_not_break_a_build() -> None:
    gone = Terminal.of(Closed(), {})
    for sink in (Plain(gone, gone), Quiet(gone, gone), JsonLines(Closed()), Live(Terminal.of(Closed(tty=True), TTY), gone)):
        for event in (*failing_step(), events.Message(text="x", level="warning"), built()):
            sink.emit(event)
        sink.close()


class Interrupting(Screen):
    """A stream during whose first write a signal handler emits an event on the same thread."""

    def __init__(self, *, tty: bool = False) -> None:
        super().__init__(tty=tty)
        self.sink: Sink | None = None

    def write(self, text: str) -> int:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.emit(events.Message(text="stopping", level="warning"))
        return super().write(text)


@pytest.mark.parametrize("kind", ["plain", "quiet", "json", "live"])
def test_a_signal_handler_may_emit_in_the_middle_of_a_write(kind: str) -> None:
    screen = Interrupting(tty=kind == "live")
    terminal = Terminal.of(screen, TTY)
    sinks = {"plain": Plain, "quiet": Quiet, "live": Live}
    sink = JsonLines(screen) if kind == "json" else sinks[kind](terminal, terminal)
    screen.sink = sink

    def work() -> None:
        for event in failing_step():
            sink.emit(event)
        sink.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "stopping" in screen.getvalue()


# --- for programs and the record -------------------------------------------------------------------------------------


def test_json_lines_can_be_read_back() -> None:
    out = Screen()
    shown = [*failing_step(), events.Message(text="ünïcode \x1b[31m", level="warning"), built()]
    for event in shown:
        JsonLines(out).emit(event)
    assert [from_json(json.loads(line)) for line in out.getvalue().splitlines()] == shown
    assert out.getvalue().isascii()


def test_the_log_file_has_everything(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    with LogFile(path, build="b1") as log:
        for event in failing_step():
            log.emit(event)
        log.emit(events.Message(build="b1", text="details", level="debug"))
        log.emit(events.Output(build="other", line="not ours"))
        assert "nginx-lite" in path.read_text(), "a killed build leaves its log"
        log.write_error("it failed\nfor a reason")
    text = path.read_text()
    for expected in ("step 1/2 packages (shell)", "  ! E: Unable to locate", "details", "error: it failed", "error: for a reason"):
        assert expected in text
    assert "not ours" not in text
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in text.splitlines())


def test_a_full_disk_ends_the_log_and_not_the_build() -> None:
    log = LogFile(Path("/dev/full"))
    for event in failing_step():
        log.emit(event)
    log.close()
    assert log.error is not None


def test_no_field_of_an_event_lets_a_secret_through() -> None:
    secrets = Secrets({"token": "s3cr3t/value"}, b"k")
    memory = Memory()
    sink = MaskingSink(memory, secrets)
    for event in (
        events.Output(build="b", line="curl -H s3cr3t/value", step="use s3cr3t/value"),
        events.BuildStarted(build="b", template="x", name="n", version="1", steps=("a", "echo s3cr3t/value")),
        events.BuildFinished(build="b", name="n", status="failed", seconds=1.0, error="czNjcjN0L3ZhbHVl", timings={"s3cr3t/value": 1.0}),
        events.Message(build="b", text="x", hint="s3cr3t%2Fvalue"),
    ):
        sink.emit(event)
    text = json.dumps([event.to_json() for event in memory.events])
    for form in ("s3cr3t", "czNjcjN0L3ZhbHVl"):
        assert form not in text
    assert text.count("***") >= 6


def test_an_event_without_a_secret_stays_itself() -> None:
    event = events.Output(build="b", line="nothing to hide")
    assert mask_event(event, Secrets({"token": "s3cr3t"}, b"k")) is event


def test_nothing_but_a_terminal_gets_the_live_display(tmp_path: Path) -> None:
    from baker.cli.app import App
    from baker.core.home import Home

    home = Home.from_environment({"BAKE_HOME": str(tmp_path)})
    for tty, env, kind in ((True, TTY, Live), (True, {"TERM": "dumb"}, Plain), (False, TTY, Plain)):
        terminal = Terminal.of(Screen(tty=tty), env)
        with display(App(home, env, terminal, terminal)) as shown:
            assert isinstance(shown, kind)
