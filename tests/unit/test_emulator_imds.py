"""The emulator's metadata service and the relay that QEMU joins a guest to it with."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ec2.imds import Metadata

RELAY = Path(__file__).parents[1] / "ec2/relay.py"
TREE = {
    "meta-data": {"instance-id": "i-1", "public-keys": {"": ["0=bake"], "0": {"openssh-key": "ssh-ed25519 A bake"}}},
    "user-data": None,
    "dynamic": {"instance-identity": {"document": "{}"}},
}


@pytest.fixture
def service() -> Iterator[Metadata]:
    found = Metadata(lambda: TREE, "required")
    yield found
    found.close()


def ask(service: Metadata, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}{path}", method=method, headers=named)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token(service: Metadata) -> str:
    return ask(service, "/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")[1]


def test_a_token_is_required(service: Metadata) -> None:
    assert ask(service, "/latest/meta-data/instance-id")[0] == 401
    assert ask(service, "/latest/api/token", "PUT")[0] == 400
    assert ask(service, "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token(service)) == (200, "i-1")
    assert service.seen[0] == "GET /latest/meta-data/instance-id 401"


def test_the_tree_is_listed_as_ec2_does(service: Metadata) -> None:
    given = token(service)

    def got(path: str) -> tuple[int, str]:
        return ask(service, path, X_aws_ec2_metadata_token=given)

    assert got("/2021-03-23/meta-data/") == (200, "instance-id\npublic-keys/")
    assert got("/latest/meta-data/public-keys/") == (200, "0=bake")
    assert got("/latest/meta-data/public-keys/0/openssh-key") == (200, "ssh-ed25519 A bake")
    assert got("/latest/dynamic/instance-identity/") == (200, "document")
    assert got("/latest/user-data")[0] == 404
    assert got("/latest/meta-data/iam/")[0] == 404


def test_the_relay_joins_a_guests_connection(service: Metadata) -> None:
    request = b"PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", RELAY, str(service.port)], input=request, capture_output=True, check=True, timeout=10
    )
    assert done.stdout.startswith(b"HTTP/1.0 200 OK\r\n")
    assert len(done.stdout.partition(b"\r\n\r\n")[2]) > 40
