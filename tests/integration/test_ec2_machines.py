"""The emulator's instances are machines: one is started, logged in to, stopped, made an image of, and another one started from that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ec2 import Emulator, machines_possible
from tests.ec2.seed import SIZE
from tests.support.until import until

pytestmark = [pytest.mark.vm, pytest.mark.skipif(bool(machines_possible()), reason=machines_possible())]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "cloud", machines=True) as found:
        yield found
    here = str(tmp_path / "cloud").encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if here in _read(path)], "a machine outlives its emulator"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Key:
    """An SSH key and the host key that the user data injects."""

    def __init__(self, directory: Path) -> None:
        self.path, self.host, self.known = directory / "key", directory / "host", directory / "known_hosts"
        for path in (self.path, self.host):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)

    @property
    def public(self) -> bytes:
        return Path(f"{self.path}.pub").read_bytes()

    def user_data(self) -> str:
        public = Path(f"{self.host}.pub").read_text().strip()
        return "#cloud-config\n" + json.dumps(
            {"hostname": "seed", "ssh_keys": {"ed25519_private": self.host.read_text(), "ed25519_public": public}}
        )

    def ssh(self, address: str, command: str) -> subprocess.CompletedProcess[str]:
        """Logged in with the host key verified. An attempt ends after half a minute: a connection that was made while the guest
        configured its network may be lost without a word."""
        self.known.write_text(f"{address} {Path(f'{self.host}.pub').read_text()}")
        options = [
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known}",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "IdentitiesOnly=yes",
        ]
        argv = ["ssh", "-F", "none", "-i", self.path, *(word for option in options for word in ("-o", option)), f"root@{address}", command]
        return subprocess.run(["timeout", "30", *argv], capture_output=True, text=True, check=False)


def described(ec2: Any, instance: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])


def state(ec2: Any, instance: str) -> str:
    return str(described(ec2, instance)["State"]["Name"])


def logged_in(ec2: Any, key: Key, instance: str, console: Callable[[], str]) -> str:
    """The address at which SSH answers with the host key that was injected."""
    until(lambda: state(ec2, instance) == "running", 30, "the instance runs")
    address = described(ec2, instance)["PublicIpAddress"]
    until(
        lambda: key.ssh(address, "true").returncode == 0,
        240,
        lambda: f"SSH answers at {address}: {key.ssh(address, 'true').stderr}\n{console()[-3000:]}",
        pause=0.5,
    )
    return str(address)


@pytest.mark.timeout(900)
def test_an_instance_is_a_machine_and_its_image_starts_another(cloud: Emulator, ec2_seed: Path, tmp_path: Path) -> None:
    key, ec2 = Key(tmp_path), cloud.as_bake("ec2")
    group = ec2.create_security_group(GroupName="ssh", Description="ssh")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    ec2.import_key_pair(KeyName="test", PublicKeyMaterial=key.public)
    wanted = {
        "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, "KeyName": "test", "SecurityGroupIds": [group],
        "UserData": key.user_data(),
        "MetadataOptions": {"HttpTokens": "required"},
    }  # fmt: skip

    def run(image: str) -> str:
        return str(ec2.run_instances(ImageId=image, **wanted)["Instances"][0]["InstanceId"])

    def console(instance: str) -> str:
        return str(ec2.get_console_output(InstanceId=instance).get("Output", ""))

    first = run(cloud.seed_image(disk=ec2_seed, size=SIZE))
    address = logged_in(ec2, key, first, lambda: console(first))
    assert key.ssh(address, "hostname").stdout == "seed\n"
    assert key.ssh(address, "ls -d /dev/nvme0n1").returncode == 0
    assert key.ssh(address, "echo baked > /root/mark; rm -f /root/.ssh/authorized_keys; sync").returncode == 0
    until(lambda: "-----BEGIN SSH HOST KEY KEYS-----" in console(first), 60, "the first instance shows its host keys")
    assert not [line for line in cloud.imds(first) if line.endswith("401")], "something asks without a token"
    ec2.stop_instances(InstanceIds=[first])
    until(lambda: state(ec2, first) == "stopped", 120, "the first instance is stopped")
    assert "PublicIpAddress" not in described(ec2, first)
    image = ec2.create_image(InstanceId=first, Name="web-1")["ImageId"]
    until(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available", 30, "the image is available")
    ec2.terminate_instances(InstanceIds=[first])
    until(lambda: state(ec2, first) == "terminated", 30, "the first instance is terminated")
    second = run(image)
    address = logged_in(ec2, key, second, lambda: console(second))
    assert key.ssh(address, "cat /root/mark").stdout == "baked\n"
    key.ssh(address, "systemctl poweroff")
    until(lambda: state(ec2, second) == "stopped", 120, "the second instance is stopped")
    assert described(ec2, second)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    ec2.terminate_instances(InstanceIds=[second])
    until(lambda: state(ec2, second) == "terminated", 30, "the second instance is terminated")
    assert cloud.unread == []
