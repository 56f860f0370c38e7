"""Bootstrapped disks boot by themselves, as machines of their own. Nothing of bake but the source takes part: a bare QEMU boots them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from baker.core.errors import SourceError
from baker.sources.registry import for_spec
from baker.template.model import DebootstrapSource
from tests.support.qemu import Guest, booted
from tests.support.sources import context_in

pytestmark = [pytest.mark.vm, pytest.mark.net]


def make_key(path: Path) -> str:
    """An ed25519 key pair; returns its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def assert_machine(guest: Guest, *, gib: int) -> None:
    """What holds on every disk of ours."""
    said = guest.ssh(
        "df --block-size=1 --output=size / | tail -1; systemctl --failed --no-legend | wc -l; wc -c < /etc/machine-id;"
        "ls /etc/apt/apt.conf.d; readlink /etc/resolv.conf; cat /etc/hostname; dpkg --audit"
    ).stdout.split()
    assert int(said[0]) > 0.9 * gib * (1 << 30), "the root file system fills the disk"
    assert said[1] == "0", guest.ssh("systemctl --failed").stdout
    assert said[2] == "33"
    assert "00bake-host" not in said, "the host's apt settings are not left in the image"
    assert said[-2:] == ["../run/systemd/resolve/stub-resolv.conf", "box"]


def test_trixie_under_uefi_with_a_given_identity(tmp_path: Path) -> None:
    """The host key is known before the start, so nothing is trusted on first use."""
    client, host = make_key(tmp_path / "client"), make_key(tmp_path / "host")
    (tmp_path / "name").write_text("given-name")
    spec = DebootstrapSource(suite="trixie", hostname="box")
    with context_in(tmp_path) as context:
        source = for_spec(spec)
        image = source.fetch(spec, context)
        assert source.peek(spec, context) == image
        assert not list(context.scratch.iterdir())
    credentials = {
        "ssh.authorized_keys.root": tmp_path / "client.pub",
        "bake.ssh_host_ed25519_key": tmp_path / "host",
        "system.hostname": tmp_path / "name",
    }
    with booted(image.disk.path, tmp_path, firmware="uefi", size="5G", credentials=credentials, known_hosts=tmp_path / "known") as guest:
        (tmp_path / "known").write_text(f"[127.0.0.1]:{guest.port} {host}")
        guest.wait_for_ssh()
        assert_machine(guest, gib=5)
        said = guest.ssh("hostname; test -d /sys/firmware/efi && echo uefi; ls /etc/ssh; cat /root/.ssh/authorized_keys").stdout
        assert said.startswith("given-name\nuefi\n")
        assert "ssh_host_rsa_key" not in said, "a machine with a given key makes no others"
        assert client in said


def test_bookworm_under_bios_as_a_new_machine(tmp_path: Path) -> None:
    """Without a given host key it makes its own, and says who it is on the serial console."""
    make_key(tmp_path / "client")
    spec = DebootstrapSource(suite="bookworm", hostname="box")
    with context_in(tmp_path) as context:
        image = for_spec(spec).fetch(spec, context)
    credentials = {"ssh.authorized_keys.root": tmp_path / "client.pub"}
    with booted(image.disk.path, tmp_path, firmware="bios", size="4G", credentials=credentials, known_hosts=tmp_path / "known") as guest:
        guest.wait_for_console("box login:")
        guest.wait_for_ssh()
        assert_machine(guest, gib=4)
        kinds = guest.ssh("cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f1").stdout.split()
        assert sorted(kinds) == ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"]
        kernel = guest.ssh("uname -r; readlink /initrd.img /vmlinuz; ls /etc/kernel/postinst.d").stdout.split()
        assert kernel[1:3] == [f"boot/initrd.img-{kernel[0]}", f"boot/vmlinuz-{kernel[0]}"], "grub.cfg goes by these links"
        assert "initramfs-tools" in kernel, "the next kernel gets an initramfs"


def test_an_unknown_package_is_told(tmp_path: Path) -> None:
    spec = DebootstrapSource(suite="trixie", packages=("no-such-package-anywhere",))
    with context_in(tmp_path) as context, pytest.raises(SourceError, match="no-such-package-anywhere") as failure:
        for_spec(spec).fetch(spec, context)
    assert failure.value.code == "source.bootstrap-package" and "trixie" in failure.value.hint
    assert not list((tmp_path / "home/data").rglob("*.data")), "nothing half-made is left in the store"
