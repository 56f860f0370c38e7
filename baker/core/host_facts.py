"""Facts about the host for the record of a build: system, tool versions, user and CI run."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from baker.core import process
from baker.core.version import VERSION

# The environment variables that identify a job of a CI system; each system documents its own.
CI_VARIABLES = {
    "GITHUB_ACTIONS": ("GITHUB_REPOSITORY", "GITHUB_WORKFLOW", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_SHA", "GITHUB_ACTOR"),
    "GITLAB_CI": ("CI_PROJECT_PATH", "CI_PIPELINE_ID", "CI_JOB_ID", "CI_JOB_URL", "CI_COMMIT_SHA", "GITLAB_USER_LOGIN"),
    "JENKINS_URL": ("JOB_NAME", "BUILD_NUMBER", "BUILD_URL"),
    "BUILDKITE": ("BUILDKITE_PIPELINE_SLUG", "BUILDKITE_BUILD_NUMBER", "BUILDKITE_BUILD_URL", "BUILDKITE_COMMIT"),
    "CIRCLECI": ("CIRCLE_PROJECT_REPONAME", "CIRCLE_BUILD_NUM", "CIRCLE_BUILD_URL", "CIRCLE_SHA1"),
}
VERSION_COMMANDS = {
    "qemu": ("qemu-system-x86_64", "--version"),
    "qemu-img": ("qemu-img", "--version"),
    "ssh": ("ssh", "-V"),
    "mmdebstrap": ("mmdebstrap", "--version"),
}


def now() -> str:
    """The current time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def host_facts() -> dict[str, str]:
    """The host's name, system, kernel, machine and processor."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "name": platform.node(),
        "system": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
    }


def cpu_model() -> str:
    """The processor as the kernel names it."""
    return next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())


def tool_versions(tools: Mapping[str, tuple[str, ...]] = VERSION_COMMANDS) -> dict[str, str]:
    """The first line of each tool's version output. Tools that are not installed are left out."""
    versions = {"bake": VERSION, "python": platform.python_version()}
    for name, argv in tools.items():
        if path := shutil.which(argv[0]):
            versions[name] = _version(path, argv, Path(path).stat().st_mtime_ns)
    return versions


@cache
def _version(path: str, argv: tuple[str, ...], changed: int) -> str:
    """The first line that a tool says of its version, asked once per process while its file stays as it is."""
    result = process.run([path, *argv[1:]], check=False, timeout=20)
    text = (result.stdout or result.stderr).strip().splitlines()
    return text[0] if text else "unknown"


def who() -> str:
    """The user and the host, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def ci_run(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that identify the CI run; empty outside of CI."""
    for system, names in CI_VARIABLES.items():
        if env.get(system):
            return {"system": system.removesuffix("_CI").removesuffix("_URL"), **{name: env[name] for name in names if env.get(name)}}
    return {"system": "unknown"} if env.get("CI") else {}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
