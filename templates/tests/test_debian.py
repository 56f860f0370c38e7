"""What every Debian base promises: it came up by itself, as a machine of its own, and is ready for packages."""

import re


def test_is_debian(host):
    assert host.system_info.distribution == "debian"
    assert host.system_info.codename in ("bookworm", "trixie")


def test_came_up_without_failed_units(host):
    state = host.run("systemctl is-system-running --wait")
    assert state.stdout.strip() == "running", host.check_output("systemctl --failed --no-legend --plain")


def test_ssh_lets_in_keys_only(host):
    assert host.service("ssh").is_running
    assert host.service("ssh").is_enabled
    settings = host.check_output("sshd -T")
    assert re.search(r"^permitrootlogin (without-password|prohibit-password)$", settings, re.MULTILINE)
    password = host.check_output("getent shadow root").split(":")[1]
    assert password.startswith(("*", "!")), "root has a password"


def test_root_fills_the_disk(host):
    device = host.check_output("findmnt --noheadings --output SOURCE /").strip()
    disk = host.check_output(f"lsblk --nodeps --noheadings --output PKNAME {device}").strip()
    disk_bytes = int(host.check_output(f"blockdev --getsize64 /dev/{disk}"))
    root_bytes = int(host.check_output("findmnt --noheadings --bytes --output SIZE /"))
    assert host.mount_point("/").filesystem == "ext4"
    assert root_bytes > 0.9 * disk_bytes


def test_has_an_identity_of_its_own(host):
    machine_id = host.file("/etc/machine-id").content_string.strip()
    assert re.fullmatch(r"[0-9a-f]{32}", machine_id)
    assert host.file("/etc/ssh/ssh_host_ed25519_key").mode == 0o600


def test_network_and_names_come_from_dhcp(host):
    assert host.service("systemd-networkd").is_running
    assert host.service("systemd-resolved").is_running
    assert host.file("/etc/resolv.conf").linked_to == "/run/systemd/resolve/stub-resolv.conf"
    assert re.search(r"^default .* proto dhcp", host.check_output("ip -4 route"), re.MULTILINE)


def test_packages_are_whole(host):
    assert host.check_output("dpkg --audit") == ""
    host.run_test("apt-get check")
    sources = host.check_output("apt-get --print-uris update")
    assert sources, "apt knows no archive"


def test_the_next_kernel_will_boot(host):
    """grub.cfg goes by the links that the kernel packages keep."""
    for link, target in (("/vmlinuz", "/boot/vmlinuz-"), ("/initrd.img", "/boot/initrd.img-")):
        assert host.file(link).linked_to.startswith(target)
        assert host.file(host.file(link).linked_to).size > 1_000_000
    uuid = host.check_output("findmnt --noheadings --output UUID /").strip()
    assert f"root=UUID={uuid}" in host.file("/boot/grub/grub.cfg").content_string


def test_ansible_can_work_here(host):
    assert host.run("python3 -c 'import json, zipfile, ssl, ctypes'").succeeded
