def sshd(host):
    """The effective settings of the SSH server, by its own word."""
    lines = host.check_output("sshd -T -C user=nobody,host=localhost,addr=127.0.0.1").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_ssh_logins(host, bake_vars):
    settings = sshd(host)
    assert settings["passwordauthentication"] == ("yes" if bake_vars["ssh_password_login"] else "no")
    # sshd's two names for one thing
    assert settings["permitrootlogin"].replace("without-password", "prohibit-password") == bake_vars["ssh_root_login"]
    assert settings["permitemptypasswords"] == "no"
    assert settings["x11forwarding"] == "no"


def test_a_password_is_not_even_asked_for(host, bake_vars):
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PreferredAuthentications=none"
    offered = host.run(f"ssh {options} nobody@127.0.0.1 || true").stderr
    assert "Permission denied" in offered
    assert ("password" in offered) == bake_vars["ssh_password_login"]


def test_kernel_settings_are_in_force(host, bake_vars):
    for path, value in {
        "kernel/dmesg_restrict": "1",
        "kernel/kptr_restrict": "2",
        "fs/protected_hardlinks": "1",
        "net/ipv4/conf/all/accept_redirects": "0",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/tcp_syncookies": "1",
        "net/ipv4/ip_forward": "1" if bake_vars["ip_forward"] else "0",
    }.items():
        assert host.file(f"/proc/sys/{path}").content_string.strip() == value, path


def test_no_account_has_an_empty_password(host):
    assert host.check_output("awk -F: '$2 == \"\" { print $1 }' /etc/shadow") == ""
    assert host.file("/etc/shadow").mode == 0o640


def test_no_core_dumps(host):
    assert host.check_output("cat /proc/sys/fs/suid_dumpable") == "0"
    assert "core" in host.file("/etc/security/limits.d/60-hardening.conf").content_string


def test_names_are_looked_up_in_dns_only(host):
    """Port 5355 (14EB in /proc/net/tcp) is LLMNR's."""
    assert ":14EB " not in host.check_output("cat /proc/net/tcp /proc/net/tcp6")


def test_rare_protocols_cannot_be_loaded(host):
    if host.exists("modprobe"):
        assert host.run("modprobe sctp").failed
