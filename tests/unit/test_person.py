"""The terminal: the question when a step fails, and the serial console."""

from __future__ import annotations

import os
import pty
import socket
import threading
from pathlib import Path

import pytest

from baker.cli.app import App
from baker.cli.prompt import Prompt
from baker.cli.serial import relay
from baker.core.errors import StepError
from baker.core.events import Memory
from baker.core.home import Home
from baker.core.process import interactive
from baker.render.live import Live
from baker.render.terminal import Terminal
from tests.support.fake_app import Screen

ERROR = StepError("step packages failed with exit code 100", step="packages", output=("E: no such \x1b[31mpackage",))
TTY = {"TERM": "xterm-256color", "COLUMNS": "80"}


def prompt(tmp_path: Path, answers: str, *, tty: bool = True) -> tuple[Prompt, Screen, Live]:
    """A prompt at a terminal with a live display, whose user will type `answers`."""
    screen, keyboard = Screen(tty=tty), Screen(tty=tty)
    keyboard.write(answers)
    keyboard.seek(0)
    terminal = Terminal.of(screen, TTY)
    shown = Live(terminal, terminal)
    app = App(Home.from_environment({"BAKE_HOME": str(tmp_path)}), TTY, terminal, terminal, keyboard)
    app.sink = Memory()
    return Prompt(app, shown), screen, shown


@pytest.mark.parametrize(
    ("typed", "decision"),
    [("c\n", "cleanup"), ("a\n", "abort"), ("r\n", "retry"), ("Retry\n", "retry"), ("\nwhat?\nr\n", "retry"), ("", "cleanup")],
)
def test_what_is_typed_is_what_happens(tmp_path: Path, typed: str, decision: str) -> None:
    asked, screen, shown = prompt(tmp_path, typed)
    assert asked.on_failure("ask", ERROR, ["false"]) == decision
    shown.close()
    assert "step packages failed with exit code 100" in screen.getvalue()
    assert "E: no such package" in screen.getvalue()
    assert "[r]etry" in screen.getvalue()


def test_a_shell_and_then_the_question_again(tmp_path: Path) -> None:
    asked, _, shown = prompt(tmp_path, "s\nc\n")
    assert asked.on_failure("ask", ERROR, ["touch", str(tmp_path / "entered")]) == "cleanup"
    shown.close()
    assert (tmp_path / "entered").exists()


def test_the_policy_shell_goes_in_before_it_asks(tmp_path: Path) -> None:
    asked, _, shown = prompt(tmp_path, "a\n")
    assert asked.on_failure("shell", ERROR, ["touch", str(tmp_path / "entered")]) == "abort"
    shown.close()
    assert (tmp_path / "entered").exists()


def test_nobody_there_means_cleanup(tmp_path: Path) -> None:
    asked, _, shown = prompt(tmp_path, "r\n", tty=False)
    assert asked.on_failure("ask", ERROR, ["touch", str(tmp_path / "entered")]) == "cleanup"
    shown.close()
    assert not (tmp_path / "entered").exists()


@pytest.mark.parametrize(("argv", "code"), [(["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -TERM $$"], 143)])
def test_an_interactive_command_has_its_exit_code(argv: list[str], code: int) -> None:
    assert interactive(argv) == code


class Console:
    """A serial console (the other end of a socket) with somebody at a keyboard."""

    def __init__(self) -> None:
        self.guest, self.device = socket.socketpair()
        self.keyboard, self._keys = pty.openpty()
        self.screen, self._picture = os.pipe()
        self.thread = threading.Thread(target=relay, args=(self._keys, self._picture, self.device.fileno()), daemon=True)
        import tty

        tty.setraw(self._keys)
        self.thread.start()

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)


def test_the_serial_console_carries_both_ways_until_control_bracket() -> None:
    console = Console()
    console.type(b"ls\x03\r")
    assert console.guest.recv(100) == b"ls\x03\r"
    console.guest.sendall(b"login: ")
    assert os.read(console.screen, 100) == b"login: "
    console.type(b"x\x1d")
    assert console.guest.recv(100) == b"x"
    console.thread.join(10)
    assert not console.thread.is_alive()


def test_the_serial_console_ends_with_its_machine() -> None:
    console = Console()
    console.guest.close()
    console.thread.join(10)
    assert not console.thread.is_alive()
