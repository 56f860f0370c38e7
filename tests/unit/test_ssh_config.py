"""The texts of the SSH communicator: configuration, remote scripts."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.errors import HostError, UsageError
from baker.core.model import Endpoint, Identity
from baker.machines.identity import make_identity
from baker.machines.ssh import remote
from baker.machines.ssh.config import known_hosts, ssh_config


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("id with space"), "web", "debian")


def effective(config: Path, host: str) -> dict[str, str]:
    """What ssh itself makes of the configuration."""
    text = subprocess.run(["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def write(identity: Identity, directory: Path, endpoint: Endpoint) -> Path:
    config = directory / "ssh_config"
    text = ssh_config("bake-build", endpoint, identity, known_hosts=directory / "known hosts", control_path=directory / "100%.ssh")
    config.write_text(text)
    return config


def test_ssh_reads_it_as_meant(identity: Identity, tmp_path: Path) -> None:
    options = effective(write(identity, tmp_path, Endpoint("127.0.0.1", 2222)), "bake-build")
    assert (options["hostname"], options["port"], options["user"]) == ("127.0.0.1", "2222", "debian")
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["controlmaster"] in ("false", "no")
    assert options["controlpath"] == str(tmp_path / "100%.ssh") or options["controlpath"] == str(tmp_path / "100%%.ssh")
    assert options["identityfile"] == str(identity.client_key)
    assert options["identitiesonly"] == "yes" and options["identityagent"] == "none"
    assert options["hostkeyalias"] == "bake-build"


def test_only_the_alias_is_configured(identity: Identity, tmp_path: Path) -> None:
    assert effective(write(identity, tmp_path, Endpoint("127.0.0.1", 2222)), "example.org")["port"] == "22"


def test_a_proxy_is_handed_on_whole(identity: Identity, tmp_path: Path) -> None:
    config = write(identity, tmp_path, Endpoint("127.0.0.1", 2222, proxy_command="ssh -W %h:%p me@other"))
    assert effective(config, "bake-build")["proxycommand"] == "ssh -W %h:%p me@other"


def test_the_known_host_is_the_injected_key(identity: Identity) -> None:
    alias, kind, key = known_hosts("bake-build", identity).split()
    assert (alias, kind) == ("bake-build", "ssh-ed25519")
    assert f"{kind} {key}" in identity.host_public


def test_a_control_path_that_no_socket_can_have_is_refused(identity: Identity, tmp_path: Path) -> None:
    with pytest.raises(HostError) as error:
        ssh_config("x", Endpoint("h", 1), identity, known_hosts=tmp_path, control_path=tmp_path / ("a" * 100))
    assert error.value.code == "host.path-too-long"


@pytest.mark.parametrize(
    "script",
    [
        remote.run_script("t0", env_lines=1, script_size=2, user="a b'c", shell="/bin/sh", cwd="/x y'z"),
        remote.run_script("t0", env_lines=0, script_size=0, user="root", shell="/bin/bash", cwd=None),
        remote.kill_script("t0"),
        remote.put_script("t0", "/a b/it's", size=3, mode=0o644, owner="o'w", group="g"),
        remote.put_tree_script("/a b/it's"),
        remote.get_script("/a b/it's"),
        remote.command_line("echo 'x'", login="debian"),
    ],
)
def test_remote_scripts_are_posix_sh(script: str) -> None:
    result = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_only_a_user_who_is_not_root_needs_sudo() -> None:
    assert remote.command_line("true", login="root") == "exec /bin/sh -c true"
    assert remote.command_line("true", login="debian") == "exec sudo -n -- /bin/sh -c true"


def test_an_environment_file_gives_back_what_went_in() -> None:
    value = 'it\'s "odd" $HOME `x` \\ \n two\t'
    text = remote.environment_file({"A": value, "_b2": ""}).decode()
    assert shlex.split(text) == ["export", f"A={value}", "export", "_b2="], "as the quoting rules of POSIX shells have it"
    for name, text, code in (("not-a-name", "x", "machine.bad-variable-name"), ("A", "\0", "machine.bad-variable-value")):
        with pytest.raises(UsageError) as error:
            remote.environment_file({name: text})
        assert error.value.code == code


@pytest.mark.parametrize(
    "name",
    ["root\n ProxyCommand touch /tmp/owned", "root\r", "a b", "-oProxyCommand=x", "", "x" * 65, 'a"b', "$(id)", "a;b", "root\x00"],
)
def test_a_user_name_that_is_more_than_a_name_is_refused(identity: Identity, tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError) as caught:
        write(replace(identity, username=name), tmp_path, Endpoint("127.0.0.1", 2222))
    assert caught.value.code == "ssh.bad-name"


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "a\nProxyCommand x", "", "$(id)"])
def test_a_host_that_is_more_than_a_name_is_refused(identity: Identity, tmp_path: Path, host: str) -> None:
    with pytest.raises(HostError) as caught:
        write(identity, tmp_path, Endpoint(host, 2222))
    assert caught.value.code == "ssh.bad-name"


@pytest.mark.parametrize("name", ["root", "debian", "ec2-user", "_apt", "first.last", "user@example.org", "DOMAIN\\user", "0day"])
def test_user_names_as_systems_have_them_are_written(identity: Identity, tmp_path: Path, name: str) -> None:
    config = write(replace(identity, username=name), tmp_path, Endpoint("::1", 2222))
    assert f"  User {name}\n" in config.read_text()


def test_a_proxy_of_two_lines_is_refused(identity: Identity, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        write(identity, tmp_path, Endpoint("127.0.0.1", 2222, proxy_command="ssh -W %h:%p me@other\nUser root"))
    assert caught.value.code == "ssh.control-character"
