"""The emulator as a test sees it: a process, its address, and what can be asked of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.ec2 import keys

PROJECT = Path(__file__).resolve().parents[2]


class Faults:
    """See tests/ec2/faults.py for the kinds."""

    def __init__(self, cloud: Emulator) -> None:
        self._cloud = cloud

    def add(self, action: str, kind: str, times: int = 1, skip: int = 0, *, seconds: float = 1.0, region: str = "") -> None:
        self._cloud.ask("fault", action=action, kind=kind, times=times, skip=skip, seconds=seconds, region=region)

    def clear(self) -> None:
        self._cloud.ask("clear-faults")

    @property
    def fired(self) -> list[str]:
        """ "ec2:RunInstances reset", in order."""
        return list(self._cloud.ask("faults")["fired"])


class Emulator:
    """One account in a process of its own. See tests/ec2/__init__.py."""

    def __init__(
        self, directory: Path, machines: bool = False, *, policy: Path | None = None, delay: float = 0.05, region: str = "eu-central-1"
    ) -> None:
        self.directory, self.region = directory, region
        self.faults = Faults(self)
        self._settings = {
            "directory": str(directory), "machines": machines, "delay": delay, "region": region,
            "policy": json.loads(policy.read_text()) if policy else None,
        }  # fmt: skip
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self._clients: dict[tuple[str, str, str], Any] = {}

    def __enter__(self) -> Emulator:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = (self.directory / "emulator.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ec2.serve"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._settings) + "\n")
        self._process.stdin.flush()
        port = self._process.stdout.readline().strip()
        if not port:
            self.close()
            raise RuntimeError((self.directory / "emulator.log").read_text()[-4000:])
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The process and its machines end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        self._log.close()

    @property
    def env(self) -> dict[str, str]:
        """What a `bake` process needs, and nothing of the developer's own AWS configuration."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": keys.BAKE, "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),
        }  # fmt: skip

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client for the test's own preparations and looks: not recorded, not judged, without faults."""
        return self._client(service, region, keys.ADMIN)

    def as_bake(self, service: str, region: str | None = None) -> Any:
        """A boto3 client that is treated as bake is."""
        return self._client(service, region, keys.BAKE)

    def _client(self, service: str, region: str | None, key: str) -> Any:
        where = (service, region or self.region, key)
        if where not in self._clients:
            self._clients[where] = self._made(*where)
        return self._clients[where]

    def _made(self, service: str, region: str, key: str) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.Session(aws_access_key_id=key, aws_secret_access_key="secret", region_name=region).client(
            service, endpoint_url=self.url, config=Config(retries={"mode": "standard", "total_max_attempts": 3}, proxies={})
        )

    def ask(self, verb: str, **values: Any) -> Any:
        """Something of tests/ec2/control.py."""
        request = urllib.request.Request(f"{self.url}/_emulator/{verb}", json.dumps(values, default=str).encode(), method="POST")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["error"]) from None

    @property
    def calls(self) -> list[dict[str, Any]]:
        """bake's calls in order: service, action, region, parameters."""
        return list(self.ask("calls"))

    @property
    def unread(self) -> list[str]:
        """Parameters that bake sent and that the emulator does not read. A test asserts that there are none."""
        return list(self.ask("unread"))

    @property
    def denied(self) -> list[str]:
        """What the policy did not allow."""
        return list(self.ask("denied"))

    def inventory(self) -> dict[str, Any]:
        """Everything in the account: see tests/ec2/inventory.py."""
        return dict(self.ask("inventory"))

    def seed_image(self, name: str = "debian-13-amd64-20261101-1", region: str | None = None, **facts: Any) -> str:
        """Somebody else's AMI (Debian's account unless `owner` says otherwise); returns its id. `facts`: those of seeding.seed_image,
        among them `disk` (a qcow2 or raw file for machines) and `size` (GiB)."""
        return str(
            self.ask(
                "seed-image",
                name=name,
                region=region or self.region,
                **{key: str(value) if isinstance(value, Path) else value for key, value in facts.items()},
            )
        )

    def seed_parameter(self, name: str, value: str, region: str | None = None) -> None:
        """One of AWS's public parameters ("/aws/service/...")."""
        self.ask("seed-parameter", name=name, value=value, region=region or self.region)

    def imds(self, instance: str) -> list[str]:
        """What the machine of an instance has asked its metadata service: "GET /latest/user-data 200", in order."""
        return list(self.ask("imds", instance=instance))

    def clear_calls(self) -> None:
        self.ask("clear-calls")

    def reset(self) -> None:
        """An empty account: no resources, calls, faults."""
        self.ask("reset")

    def use_policy(self, policy: Path | dict[str, Any] | None) -> None:
        """From now on bake's calls need what the policy (a file or its JSON) allows; None: all is allowed."""
        self.ask("settings", policy=json.loads(policy.read_text()) if isinstance(policy, Path) else policy)

    @contextmanager
    def delay(self, seconds: float) -> Iterator[None]:
        """Other times for changes of state, for a while."""
        self.ask("settings", delay=seconds)
        yield
        self.ask("settings", delay=self._settings["delay"])


def machines_possible() -> str:
    """Why there can be no machines here; empty when there can."""
    if shutil.which("qemu-system-x86_64") is None or shutil.which("setpriv") is None:
        return "qemu-system-x86_64 or setpriv is not installed"
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.255.1.1", 22))
    except OSError as error:
        return f"port 22 of a loopback address cannot be listened at: {error}"
    return ""
