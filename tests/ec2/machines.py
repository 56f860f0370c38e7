"""Instances as real machines: QEMU, emulated (TCG), on an overlay over the disk of the AMI's root snapshot.

Like Nitro as far as QEMU has it: the root disk is NVMe, the DMI strings are Amazon's, the network is 169.254.0.0/16 with the metadata
service
at its address. The public address is one of 127.0.0.0/8 for this instance alone; on it QEMU listens at the ports that the
security groups open, and no others.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.ec2 import metadata_of
from tests.ec2.blocks import GIB
from tests.ec2.images import StrictAmi
from tests.ec2.imds import Metadata
from tests.ec2.refusals import Refused
from tests.ec2.world import world

RELAY = Path(__file__).with_name("relay.py")
STOP_SECONDS = 120.0  # EC2 too ends a guest that does not react to its power button, after some minutes
MOST_MEMORY, MOST_CPUS, MOST_PORTS = 1024, 2, 64
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")  # util-linux
OVMF = ((Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),)

_numbers = itertools.count(2)
_guests: list[Guest] = []
# the death signal follows the thread that forked: this one lives as long as the process, a request's does not
_forker = ThreadPoolExecutor(1, thread_name_prefix="forker")


class Guest:
    """The machine of one instance. `disk` is what the overlay is on; nothing writes to it."""

    def __init__(self, instance: Any, image: StrictAmi, disk: tuple[Path, str]) -> None:
        self.instance, self.base, self.uefi = instance, disk, (image.boot_mode or "").startswith("uefi")
        self.overlay = world().path("instances", f"{instance.id}.qcow2")
        self.console_path = world().path("instances", f"{instance.id}.console")
        self.metadata = Metadata(lambda: metadata_of.tree(instance), instance.metadata_options.http_tokens)
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: set[int] = set()
        self.address = ""
        self._lock, self._timer = threading.Lock(), None
        _guests.append(self)

    @property
    def started(self) -> bool:
        return self.process is not None

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def start(self) -> None:
        if not self.overlay.exists():
            root = self.instance.block_device_mapping[self.instance.root_device_name]
            size = self.instance.ec2_backend.volumes[root.volume_id].size
            base, kind = self.base
            _qemu_img(
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                base.absolute(),
                "-F",
                kind,
                self.overlay,
                str(max(size * GIB, _virtual_size(base, kind))),
            )
        self.address, self.ports = _free_address(), open_ports(self.instance)
        card = self.instance.nics[0]
        if card.public_ip_auto_assign:
            card.public_ip = self.address
        else:  # as if this host were in the private network
            card.private_ip_address = card.private_ip_addresses[0]["PrivateIpAddress"] = self.address
        self.process = _forker.submit(self._fork).result()

    def _fork(self) -> subprocess.Popen[bytes]:
        log = world().path("instances", f"{self.instance.id}.qemu").open("ab")
        with log:
            argv = [*DIE_WITH_PARENT, *self.argv()]
            return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def argv(self) -> list[str]:
        """QEMU's command line."""
        kind = INSTANCE_TYPES[self.instance.instance_type]
        memory = min(kind["MemoryInfo"]["SizeInMiB"], MOST_MEMORY)
        cpus = min(kind["VCpuInfo"]["DefaultVCpus"], MOST_CPUS)
        volume = self.instance.block_device_mapping[self.instance.root_device_name].volume_id
        uuid = metadata_of.uuid(self.instance)
        forwards = "".join(f",hostfwd=tcp:{self.address}:{port}-:{port}" for port in sorted(self.ports))
        service = f"guestfwd=tcp:169.254.169.254:80-cmd:{shutil.which('python3')} -I -S {RELAY} {self.metadata.port}"
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,accel=tcg", "-cpu", "max",
            "-m", str(memory), "-smp", str(cpus),
            "-monitor", "stdio", "-serial", f"file:{self.console_path}", *(_firmware(self.overlay) if self.uefi else ()),
            "-smbios", f"type=1,manufacturer=Amazon EC2,product={self.instance.instance_type},serial={uuid},uuid={uuid}",
            "-smbios", f"type=3,manufacturer=Amazon EC2,asset={self.instance.id}",
            "-drive", f"file={self.overlay},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap",
            "-device", f"nvme,drive=root,bootindex=0,serial={volume.replace('-', '')[:20]}",
            "-netdev", f"user,id=net,net=169.254.0.0/16,dhcpstart=169.254.0.15{forwards},{service}",
            "-device", f"virtio-net-pci,netdev=net,mac={self.instance.nics[0].mac_address},romfile=",
            "-device", "virtio-rng-pci",
        ]  # fmt: skip

    def tell(self, line: str) -> None:
        """A line to QEMU's monitor."""
        if self.process is not None and self.process.stdin is not None and self.process.poll() is None:
            try:
                self.process.stdin.write(line.encode() + b"\n")
                self.process.stdin.flush()
            except OSError:
                pass

    def open(self, ports: set[int]) -> None:
        """Ports that a security group has opened since."""
        for port in sorted(ports - self.ports):
            self.tell(f"hostfwd_add net tcp:{self.address}:{port}-:{port}")
        self.ports |= ports

    def power_off(self) -> None:
        """Press the power button; pull the plug if that does not help."""
        self.tell("system_powerdown")
        self._timer = threading.Timer(STOP_SECONDS, self.kill)
        self._timer.daemon = True
        self._timer.start()

    def reset(self) -> None:
        self.tell("system_reset")

    def kill(self) -> None:
        """Gone when this returns."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def at_rest(self) -> None:
        """After its end: no address."""
        if self._timer is not None:
            self._timer.cancel()
        self.instance.nics[0].stop()

    def console(self) -> bytes:
        return self.console_path.read_bytes() if self.console_path.exists() else b""

    def freeze(self, destination: Path) -> tuple[Path, str]:
        """The disk as it is now becomes `destination`, for ever; the machine goes on in a new overlay on it."""
        if self.overlay.exists():
            self.overlay.rename(destination)
            self.base = (destination, "qcow2")
        return self.base

    def discard(self) -> None:
        """The machine, its disk and its metadata service are gone; what was printed stays."""
        self.kill()
        self.metadata.close()
        self.overlay.unlink(missing_ok=True)
        if self in _guests:
            _guests.remove(self)


def of(instance: Any, image: StrictAmi) -> Guest:
    """The machine of a new instance. Refused for an image without a disk."""
    if instance.disk is None:
        raise Refused("EmulatorDoesNot", f"start {image.id} as a machine: its snapshot has no bytes (seed_image(disk=...))")
    return Guest(instance, image, instance.disk)


def open_ports(instance: Any) -> set[int]:
    """The TCP ports that the instance's security groups open, whoever to (only this host can come): MOST_PORTS of a range."""
    found: set[int] = set()
    for group in instance.security_groups:
        for rule in group.ingress_rules:
            if str(rule.ip_protocol) in ("tcp", "6") and rule.from_port is not None and rule.ip_range:
                found |= set(range(int(rule.from_port), min(int(rule.to_port), int(rule.from_port) + MOST_PORTS) + 1))
            elif str(rule.ip_protocol) == "-1" and rule.ip_range:
                found |= {22, 80, 443}
    return found


def rules_changed(backend: Any) -> None:
    """Let the running machines of a region listen where their groups now say."""
    for guest in list(_guests):
        if guest.instance.ec2_backend is backend and guest.started and not guest.ended:
            guest.open(open_ports(guest.instance))


def asked(instance: str) -> list[str]:
    """What an instance's machine has asked its metadata service."""
    return [line for guest in _guests if guest.instance.id == instance for line in guest.metadata.seen]


def end_all() -> None:
    for guest in list(_guests):
        guest.discard()
    _guests.clear()


def _free_address() -> str:
    """An address of 127.0.0.0/8 at which nobody listens at 22 or 80; two emulators begin at different places."""
    for number in itertools.islice(_numbers, 1000):
        address = f"127.{16 + os.getpid() % 200}.{os.getpid() // 200 % 250}.{number % 250 + 1}"
        try:
            for port in (22, 80):
                with socket.socket() as probe:
                    probe.bind((address, port))
            return address
        except OSError:
            continue
    raise AssertionError("no free address among 1000 of 127.0.0.0/8")


def _firmware(overlay: Path) -> list[str]:
    code, variables = next(pair for pair in OVMF if pair[0].exists())
    own = overlay.with_suffix(".vars")
    if not own.exists():
        shutil.copy(variables, own)
    return ["-drive", f"if=pflash,format=raw,readonly=on,file={code}", "-drive", f"if=pflash,format=raw,file={own}"]


def _qemu_img(*args: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"qemu-img {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def _virtual_size(path: Path, kind: str) -> int:
    return int(json.loads(_qemu_img("info", "--output=json", "-U", "-f", kind, path))["virtual-size"])
