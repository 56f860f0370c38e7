"""A build in a process of its own: what it says when it breaks down."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from baker.core.home import Home
from baker.plan.requests import BuildOptions, BuildRequest


def work(home: Path, **request: Any) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the events of a worker that gets the request to build `web`."""
    places = {name: str(path) for name, path in asdict(Home.from_environment({"BAKE_HOME": str(home), "HOME": str(home)})).items()}
    sent = json.dumps({"select": "web", "home": places, **request})
    result = subprocess.run([sys.executable, "-m", "baker.cli.worker"], input=sent, capture_output=True, text=True, check=False, timeout=60)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_bug_is_an_event_and_its_traceback_is_kept_in_a_private_file(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("token: os.PathLike\n")
    code, (end,) = work(tmp_path, path=5, var_files=[str(tmp_path / "v.yaml")])  # no path is a number: no caller sends that
    assert (code, end["event"], end["name"], end["status"]) == (1, "build_finished", "web", "failed")
    (kept,) = tmp_path.rglob("crashes/*.txt")
    assert end["error"].startswith("internal error: TypeError: ")
    assert "os.PathLike" not in end["error"] + kept.read_text(), "it is the value of a variable, which may be secret"
    assert f"the traceback is in {kept}; please report it as a bug" in end["error"]
    assert "Traceback" in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600


def test_an_expected_error_is_an_event_with_its_exit_code(tmp_path: Path) -> None:
    code, (end,) = work(tmp_path, path=str(tmp_path / "web.yaml"))
    assert (code, end["status"]) == (2, "failed") and end["code"].startswith("template.")
    assert "web.yaml" in end["error"]


def test_a_request_is_the_same_after_its_way_to_a_worker(tmp_path: Path) -> None:
    options = BuildOptions(
        on_error="abort", skip_verify=True, force=True, keep_failed=True, pull=True, uri="qemu:///session", accelerator="tcg",
        no_cache=True, first="2", last="packages", locked=True, clock="2026-01-01T00:00:00+00:00", replay=tmp_path / "replay",
    )  # fmt: skip
    request = BuildRequest(str(tmp_path / "web.yaml"), {"a": "1"}, (str(tmp_path / "v.yaml"),), ("web",), ("old",), options)
    assert BuildRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
