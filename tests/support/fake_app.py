"""Runs the command line inside the test's process: with real argument parsing, catalog and store, and an API with fake machines."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baker.api import Baker
from baker.artifacts import codecs
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.cli.main import VERBS, split
from baker.cli.runner import execute
from baker.core import events
from baker.core.home import Home
from baker.core.model import Forward, TestOutcome
from baker.plan.requests import BuildRequest, BuildResult
from baker.publish.base import Published, PublishOptions
from baker.rebuild.rebuild import RebuildOutcome
from baker.sessions.ephemeral import Running
from baker.upkeep.doctor import Finding
from baker.upkeep.sweep import Swept


class Screen(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, *, tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._tty, self._encoding = tty, encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


@dataclass(frozen=True)
class Result:
    """The output and exit code of a command line."""

    code: int
    out: str
    err: str


@dataclass
class FakeMachine:
    """A machine that powers off after `looks` calls of `running`."""

    looks: int = 0
    error: BaseException | None = None

    def running(self) -> bool:
        if self.error:
            raise self.error
        self.looks -= 1
        return self.looks >= 0


@dataclass
class Script:
    """The answers of the fake API, and the requests that it got."""

    events: Sequence[events.Event] = ()
    results: Sequence[BuildResult] = ()
    error: BaseException | None = None
    findings: Sequence[Finding] = ()
    swept: Sequence[Swept] = ()
    published: Sequence[Published] = ()
    verdicts: dict[str, RebuildOutcome] = field(default_factory=dict)  # by image id
    machine: FakeMachine = field(default_factory=FakeMachine)
    ssh: tuple[str, ...] = ("true",)  # ignores its arguments: no command of a guest is run; see tests.support.record_argv
    requests: list[BuildRequest] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)


class FakeBaker(Baker):
    """The real API with the real catalog and store. Methods that need a machine or this host answer from a script."""

    def __init__(self, home: Home, script: Script, **options: Any) -> None:
        super().__init__(home, **options)
        self.script = script

    def build(self, requests: Sequence[BuildRequest], *, parallel: int = 0, fail_fast: bool = True) -> list[BuildResult]:
        self.script.requests += requests
        self.script.asked |= {"parallel": parallel, "fail_fast": fail_fast}
        for event in self.script.events:
            self.sink.emit(event)
        if self.script.error:
            raise self.script.error
        return list(self.script.results)

    @contextmanager
    def boot(
        self,
        reference: str,
        *,
        forwards: Sequence[Forward] = (),
        shape: Mapping[str, Any] | None = None,
        uri: str | None = None,
        username: str | None = None,
        timeout: float = 600.0,
    ) -> Iterator[Running]:
        self.script.asked |= {"boot": reference, "forwards": tuple(forwards), "shape": shape, "uri": uri, "username": username}
        self.script.asked |= {"timeout": timeout}
        image = self.catalog.resolve(reference)
        ports = {forward.guest_port: forward.host_port or 40000 + forward.guest_port for forward in forwards}
        yield Running(f"{image.name} {image.version}", self.script.machine, None, self.script.ssh, ports)  # type: ignore[arg-type]

    def export(self, reference: str, format: str, path: str | Path, *, compress: str = "none", overwrite: bool = False) -> Path:  # noqa: A002
        self.script.asked |= {"format": format, "compress": compress}
        Path(path).write_bytes(b"x" * 2048)
        return Path(path)

    def publish(self, reference: str, to: str, options: PublishOptions) -> tuple[Published, ...]:
        self.script.asked |= {"publish": self.catalog.resolve(reference).id, "to": to, "options": options}
        for event in self.script.events:
            self.sink.emit(event)
        if self.script.error:
            raise self.script.error
        return tuple(self.script.published)

    def rebuild(self, reference: str, *, secrets: Mapping[str, str] | None = None, uri: str | None = None) -> RebuildOutcome:
        self.script.asked |= {"rebuilt": [*self.script.asked.get("rebuilt", []), reference], "secrets": dict(secrets or {})}
        return self.script.verdicts[self.catalog.resolve(reference).id]

    def sweep(self, *, kept: bool = False, dry_run: bool = False) -> list[Swept]:
        self.script.asked |= {"kept": kept, "dry_run": dry_run}
        return list(self.script.swept)

    def doctor(self) -> list[Finding]:
        return list(self.script.findings)


@dataclass
class Cli:
    """`bake` with one home and a script."""

    home: Path
    script: Script = field(default_factory=Script)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def baker(self) -> FakeBaker:
        return self.make(Home.from_environment(self.environment))

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "BAKE_HOME": str(self.home), "PATH": "/usr/bin:/bin", **self.env}

    def make(self, home: Home, **options: Any) -> FakeBaker:
        return FakeBaker(home, self.script, **options)

    def __call__(self, *argv: str | Path, tty: bool = False, stdin: str = "", out: Screen | None = None, columns: int = 80) -> Result:
        flags, verb, rest = split([str(arg) for arg in argv])
        out, err = out or Screen(tty=tty), Screen(tty=tty)
        source = Screen(tty=tty)
        source.write(stdin)
        source.seek(0)
        env = self.environment | ({"TERM": "xterm-256color", "COLUMNS": str(columns)} if tty else {})
        code = execute(verb, VERBS[verb][0], [*flags, *rest], out=out, err=err, stdin=source, env=env, make=self.make)
        return Result(code, out.getvalue(), err.getvalue())


def an_image(name: str = "web", version: str = "1.4.0", number: int = 1, **changes: Any) -> ImageRecord:
    """An image record; `number` makes its ids and digest."""
    record = ImageRecord(
        id=f"a{number:011x}",
        name=name,
        version=version,
        digest="sha256:" + f"{number:064x}",
        fingerprint=f"{number + 1000:064x}",
        parent=None,
        created="2026-11-22T20:00:00Z",
        size=123 << 20,
        virtual_size=4 << 30,
        chain=("sha256:" + f"{number + 2000:064x}",),
        verified=True,
        build=f"b{number:011x}",
        description="nginx in front of the shop",
        labels={"team": "shop"},
    )
    return replace(record, **changes)


def a_build(image: ImageRecord, **changes: Any) -> BuildRecord:
    """The record of the build of `image`."""
    record = BuildRecord(
        id=image.build,
        status="built",
        started="2026-11-22T19:58:00Z",
        finished="2026-11-22T20:00:12Z",
        template_name=image.name,
        template_version=image.version,
        template_path=f"/home/someone/{image.name}.yaml",
        template_text=f"schema: 1\nname: {image.name}\n",
        template_digest="sha256:" + "d" * 64,
        git_commit="c0ffee" * 6 + "c0ff",
        git_dirty=True,
        variables={
            "title": {"value": "Hello", "type": "string", "origin": "--var", "sensitive": False},
            "token": {"value": {"hmac": "0" * 32}, "type": "string", "origin": "BAKE_VAR_token", "sensitive": True},
        },
        source={"kind": "debootstrap", "title": "debian trixie (debootstrap)", "digest": "sha256:" + "e" * 64, "pins": {"suite": "trixie"}},
        steps=(
            StepRecord(1, "packages", "shell", "1" * 64, f"{image.name}.yaml:12:5", status="done", seconds=61.2, exit_code=0, attempts=1),
            StepRecord(2, "hardening", "file", "2" * 64, f"{image.name}.yaml:20:5", bundle="hardening", status="done", seconds=2.5),
        ),
        shape={"cpus": 2, "memory": 1 << 30, "disk_size": 4 << 30, "firmware": "bios"},
        machine={"hypervisor": "QEMU 7.2.22", "accelerator": "tcg", "accelerator_reason": "the probe's kernel did not finish under KVM"},
        host={"name": "builder", "system": "Debian GNU/Linux 12", "kernel": "6.1.0", "cpu": "some processor"},
        tools={"bake": "0.1.0", "qemu": "QEMU emulator version 7.2.22"},
        who="someone@builder",
        ci={},
        timings={"provision": 63.7, "boot": 41.0},
        tests=(TestOutcome("test_web.py::test_nginx", "passed", 1.2),),
        verify="passed",
        fingerprint=image.fingerprint,
    )
    return replace(record, **changes)


def fill(baker: Baker, *images: ImageRecord, change: Callable[[BuildRecord], BuildRecord] = lambda build: build) -> None:
    """Register images with their builds; each build has a log and a console log in the store."""
    for image in images:
        log = baker.store.add_bytes(codecs.pack_text(f"log of {image.name}\n  | \x1b[31mred\x1b[0m\n"))
        console = baker.store.add_bytes(codecs.pack_text(f"console of {image.name}\n"))
        baker.catalog.register(change(a_build(image, evidence={"log": log, "build_console": console})), image)


def a_result(name: str = "web", status: str = "built", exit_code: int = 0, **changes: Any) -> BuildResult:
    result = BuildResult(name, "1.4.0", status, None, "b00000000001", 61.0, "", exit_code)
    return replace(result, **changes)
