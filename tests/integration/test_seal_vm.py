"""Sealing on a real machine: a build does all that must not be seen afterwards, then its captured disk is read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Bake
from tests.support.machine import copied

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("seal")]

MARKER = "what-the-build-knew"
TEMPLATE = f"""
schema: 1
name: sealed
version: 1.0.0
source: {{image: debian-13}}
provisioners:
  - name: what belongs to the image
    shell:
      - useradd --create-home --shell /bin/bash ann
      - install -d -m 700 -o ann -g ann /home/ann/.ssh
      - echo "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnn ann" > /home/ann/.ssh/authorized_keys
      - cat /root/.ssh/authorized_keys >> /home/ann/.ssh/authorized_keys
      - chown ann:ann /home/ann/.ssh/authorized_keys; chmod 600 /home/ann/.ssh/authorized_keys
      - echo "nameserver 9.9.9.9" > /etc/resolv.conf.mine
  - name: traces
    shell: {{script: traces.sh}}
  - name: a service that writes when it stops
    shell:
      - |
        cat > /etc/systemd/system/chatty.service <<EOF
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=true
        ExecStop=/bin/sh -c 'echo {MARKER} >> /var/log/chatty.log; echo {MARKER} > /var/tmp/chatty'
        [Install]
        WantedBy=multi-user.target
        EOF
        touch /var/log/chatty.log; chown www-data:adm /var/log/chatty.log; chmod 640 /var/log/chatty.log
        systemctl enable --now chatty.service
verify:
  - testinfra: test_stranger.py
"""
TRACES = f"""#!/bin/sh
set -e
put() {{ mkdir -p "${{1%/*}}"; yes {MARKER} | head -n 1000 > "$1"; }}
for f in /root/.bash_history /home/ann/.python_history /root/.viminfo /root/.ssh/known_hosts /home/ann/.ansible/tmp/x \\
    /var/lib/cloud/instance/user-data.txt /var/lib/dhcp/dhclient.eth0.leases /var/lib/NetworkManager/secret_key \\
    /etc/udev/rules.d/70-persistent-net.rules \\
    /var/cache/ldconfig/aux-cache /var/mail/root /var/lib/systemd/coredump/core.x /etc/shadow- /var/backups/dpkg.status.0 \\
    /tmp/x /tmp/.hidden/y "/var/tmp/with space" /var/log/old.log.1 /var/log/app/app.log /var/lib/systemd/random-seed \\
    /var/lib/systemd/credential.secret /var/lib/docker/engine-id /var/log/cloud-init.log /var/lib/logrotate/status; do
  put "$f"
done
chmod 600 /var/log/app/app.log
for f in /var/lib/apt/lists/mirror_Packages /var/cache/apt/archives/x.deb; do echo something > "$f"; done
ln /etc/hostname /var/tmp/hard-link
logger {MARKER}
"""
STRANGER = """
def test_it_boots_with_an_identity_of_its_own(host):
    assert len(host.file("/etc/machine-id").content_string.strip()) == 32
    assert host.file("/var/lib/systemd/random-seed").size > 0
    assert host.run("systemctl is-active chatty").stdout.strip() == "active"
"""
GONE = (
    "root/.bash_history", "home/ann/.python_history", "root/.viminfo", "root/.ssh/known_hosts", "root/.ssh/authorized_keys",
    "home/ann/.ansible", "var/lib/NetworkManager/secret_key", "etc/udev/rules.d/70-persistent-net.rules",
    "var/lib/apt/lists/mirror_Packages", "var/cache/apt/archives/x.deb", "var/cache/ldconfig/aux-cache", "etc/shadow-",
    "var/log/old.log.1", "var/log/cloud-init.log", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
    "var/lib/docker/engine-id", "var/lib/logrotate/status",
)  # fmt: skip
EMPTY_DIRECTORIES = (
    "tmp", "var/tmp", "var/lib/cloud", "var/lib/dhcp", "var/mail", "var/lib/systemd/coredump", "var/backups", "var/log/journal",
    "var/lib/systemd/timers",
)  # fmt: skip


@pytest.fixture(scope="module")
def image(baked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory with the exports of the sealed image: sealed.tar and sealed.raw."""
    directory = tmp_path_factory.mktemp("seal")
    (directory / "sealed.yaml").write_text(TEMPLATE)
    (directory / "traces.sh").write_text(TRACES)
    (directory / "test_stranger.py").write_text(STRANGER)
    with copied(baked_home, directory) as home:
        bake = Bake(home)
        bake("build", directory / "sealed.yaml").ok()
        for kind in ("tar", "raw"):
            bake("export", "sealed", "--format", kind, "--output", directory / f"sealed.{kind}").ok()
        yield directory
    (directory / "sealed.raw").unlink()


@pytest.fixture(scope="module")
def files(image: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(image / "sealed.tar") as archive:
        return {entry.name.removeprefix("./").rstrip("/"): entry for entry in archive}


def text(image: Path, name: str) -> str:
    with tarfile.open(image / "sealed.tar") as archive:
        for entry in archive:
            if entry.name.removeprefix("./") == name:
                content = archive.extractfile(entry)
                assert content is not None
                return content.read().decode()
    raise AssertionError(f"the image has no {name}")


@pytest.mark.parametrize("name", GONE)
def test_it_is_gone(files: dict[str, tarfile.TarInfo], name: str) -> None:
    assert "etc/passwd" in files
    assert name not in files


@pytest.mark.parametrize("name", EMPTY_DIRECTORIES)
def test_it_is_empty(files: dict[str, tarfile.TarInfo], name: str) -> None:
    assert [path for path in files if path.startswith(f"{name}/")] == []


def test_no_host_key_is_left(files: dict[str, tarfile.TarInfo]) -> None:
    assert [name for name in files if name.startswith("etc/ssh/ssh_host_")] == []


def test_the_machine_id_is_an_empty_file(files: dict[str, tarfile.TarInfo]) -> None:
    assert files["etc/machine-id"].isreg() and files["etc/machine-id"].size == 0


def test_a_users_own_key_stays_and_the_builds_goes(image: Path, files: dict[str, tarfile.TarInfo]) -> None:
    assert text(image, "home/ann/.ssh/authorized_keys") == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnn ann\n"
    assert files["home/ann/.ssh/authorized_keys"].mode & 0o777 == 0o600


def test_logs_exist_and_are_empty(files: dict[str, tarfile.TarInfo]) -> None:
    logs = {name: entry for name, entry in files.items() if name.startswith("var/log/") and entry.isreg()}
    assert {name for name, entry in logs.items() if entry.size} <= {"var/log/README"}
    assert logs["var/log/chatty.log"].mode & 0o777 == 0o640 and logs["var/log/chatty.log"].uid == 33
    assert logs["var/log/app/app.log"].mode & 0o777 == 0o600
    assert "var/log/wtmp" in logs and "var/log/journal" in files


def test_what_a_step_made_on_purpose_stays(image: Path) -> None:
    assert text(image, "etc/resolv.conf.mine") == "nameserver 9.9.9.9\n"
    assert "ann:" in text(image, "etc/passwd")


def test_a_file_that_had_another_name_in_tmp_is_whole(image: Path) -> None:
    """Files are overwritten before they are removed, but not those that live on under another name."""
    assert text(image, "etc/hostname").strip().isprintable() and "\0" not in text(image, "etc/hostname")


def test_not_even_the_free_space_tells(image: Path) -> None:
    """Nothing of what the files that were removed held may be anywhere on the disk."""
    needle = (MARKER + "\n").encode() * 50
    with (image / "sealed.raw").open("rb") as disk:
        before = b""
        while block := disk.read(16 << 20):
            assert needle not in before + block
            before = block[-len(needle) :]
