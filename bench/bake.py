"""bake's side: writes templates from the rendered steps, runs bake, and reads times from its events."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from baker.core.home import Home
from bench import guest, machine
from bench.guest import Anchors, Line
from bench.harness import Run, allocated, run
from bench.steps import Rendered, Step

ROOT = Path(__file__).resolve().parent.parent
BASE_TEMPLATE = ROOT / "templates/debian-13.yaml"
BASE = "debian-13"


def template(name: str, rendered: Rendered) -> Path:
    """Write the template NAME.yaml beside the steps."""
    steps = [_step(step) for step in rendered.steps]
    document = {
        "schema": 1,
        "name": name,
        "version": "1.0.0",
        "source": {"image": {"name": BASE, "template": str(BASE_TEMPLATE)}},
        "builder": {"cpus": machine.CPUS, "memory": f"{machine.MEMORY_MIB}MiB", "accelerator": machine.ACCELERATOR},
        "provisioners": steps,
        "verify": [{"testinfra": rendered.tests.name}],
    }
    path = rendered.directory / f"{name}.yaml"
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML
    return path


def _step(step: Step) -> dict[str, Any]:
    if step.destination:
        return {"name": step.name, "file": {"source": step.path.name, "destination": step.destination}}
    return {"name": step.name, "shell": {"script": step.path.name}}


@dataclass(frozen=True)
class Bake:
    """`bake` with its own home."""

    home: Path
    logs: Path

    def __call__(self, *arguments: str | Path) -> Run:
        """Run `bake` as a user does, with its output also in `logs`."""
        log = self.logs / f"bake-{arguments[0]}.log"
        return run([sys.executable, "-m", "baker", *arguments], env=self._environment, cwd=ROOT, log=log)

    def build(self, *templates: Path, options: Sequence[str] = ()) -> Run:
        return self("build", *templates, "--json", *options)

    @cached_property
    def can_forget(self) -> bool:
        """Whether this version of bake has layers, and so the option not to use them."""
        return any("--no-cache" in line.text for line in self("build", "--help").ok().lines)

    @property
    def cold(self) -> tuple[str, ...]:
        """The options of a build that uses only the base image."""
        return ("--no-cache",) if self.can_forget else ()

    def bake_base(self) -> None:
        self("build", BASE_TEMPLATE, "--skip-verify", "--accelerator", machine.ACCELERATOR).ok()

    def export_base(self, destination: Path) -> None:
        """Write the base image as the qcow2 file that Packer starts from."""
        self("export", BASE, "--format", "qcow2", "--output", destination, "--overwrite").ok()

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads("\n".join(line.text for line in self("images", "--json").ok().lines))
        return found

    def image_bytes(self, names: Sequence[str]) -> int:
        """Bytes of the disks of these images and their ancestors, each counted once."""
        blobs = {digest for image in self.images() if image["name"] in names for digest in image["chain"]}
        return allocated(*(self._blob(digest) for digest in blobs))

    def data_bytes(self) -> int:
        """Bytes of images and builds: disks, catalog, logs, manifests."""
        return allocated(self.home / "data")

    def all_bytes(self) -> int:
        """Bytes of the whole home."""
        return allocated(self.home)

    def console(self, build: str) -> str:
        return "\n".join(line.text for line in self("logs", build, "--console").lines)

    def end(self) -> None:
        """Clean up after interrupted builds, and remove the directory of sockets outside of the home."""
        self("sweep", "--kept")
        shutil.rmtree(Home.from_environment(self._environment).runtime, ignore_errors=True)

    def figures(self, finished: Run) -> dict[str, float]:
        """The figures in the events of a build: seconds by stage, cached steps, and the split by the guest's clock."""
        events = list(_events(finished))
        figures = {f"stage {event['stage']}": 0.0 for event in _of(events, "stage_finished")}
        for event in _of(events, "stage_finished"):
            figures[f"stage {event['stage']}"] += event["seconds"]
        figures["cached steps"] = float(sum(bool(event.get("cached")) for event in _of(events, "step_finished")))
        verified = any(event["stage"] == "verify" for event in _of(events, "stage_finished"))
        split = None if verified else self._split(finished, events)  # a verification would add a second guest after power-off
        return figures | (guest.parts(split) if split else {})

    def _split(self, finished: Run, events: Sequence[Mapping[str, Any]]) -> guest.Split | None:
        running = [event["at"] for event in _of(events, "stage_started") if event["stage"] in ("boot", "restore")]
        sealed = [event["at"] for event in _of(events, "stage_finished") if event["stage"] == "seal"]
        build = next((event["build"] for event in _of(events, "build_finished")), "")
        if not running or not sealed or not build:
            return None
        lines = [Line(event["at"], event["line"]) for event in _of(events, "output")]
        lines += [Line(event["at"], event["text"]) for event in _of(events, "message")]
        return guest.split(Anchors(finished.started, running[0], sealed[-1], finished.ended), lines, self.console(build))

    def _blob(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        return self.home / "data/blobs" / kind / name[:2] / name

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BAKE_", "XDG_"))}
        return {**kept, "BAKE_HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _events(finished: Run) -> list[dict[str, Any]]:
    """The events among the lines, which also have bake's stderr."""
    found = []
    for line in finished.lines:
        if line.text.startswith("{"):
            event = json.loads(line.text)
            if isinstance(event, dict) and "event" in event:
                found.append(event)
    return found


def _of(events: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == kind]
