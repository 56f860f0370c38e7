"""Connect a terminal to the serial console of a machine, which is a character device (a pty) or a UNIX socket."""

from __future__ import annotations

import os
import select
import socket
import stat
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from baker.core.errors import HostError

LEAVE = b"\x1d"  # Ctrl-], as in telnet and virsh
CHUNK = 65536


def attach(console: Path, stdin: TextIO, stdout: TextIO) -> None:
    """Connect the terminal to the console until Ctrl-], or until the machine ends."""
    with _opened(console) as device, _raw(stdin):
        relay(stdin.fileno(), stdout.fileno(), device)


def relay(keyboard: int, screen: int, device: int) -> None:
    """Copy bytes in both directions until the keyboard sends Ctrl-], or either end is closed."""
    while True:
        ready, _, _ = select.select([keyboard, device], [], [])
        if device in ready:
            data = _read(device)
            if not data:
                return
            os.write(screen, data)
        if keyboard in ready:
            data = _read(keyboard)
            typed, leave, _ = data.partition(LEAVE)
            if typed:
                os.write(device, typed)
            if leave or not data:
                return


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""  # reading a pty whose other end is closed fails with EIO


@contextmanager
def _opened(console: Path) -> Iterator[int]:
    try:
        if stat.S_ISSOCK(console.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(console))
                yield connection.fileno()
            return
        device = os.open(console, os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        raise HostError(f"cannot open the serial console {console}: {error.strerror}", code="machine.serial-console-unusable") from error
    try:
        yield device
    finally:
        os.close(device)


@contextmanager
def _raw(stdin: TextIO) -> Iterator[None]:
    """Put the terminal into raw mode, so that it passes on every key including Ctrl-C, and restore it at the end."""
    before = termios.tcgetattr(stdin.fileno())
    tty.setraw(stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(stdin.fileno(), termios.TCSADRAIN, before)
