"""Identity, resources, registry, and the parts of the libvirt builder that need no machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from baker.core.errors import HostError, UsageError
from baker.core.home import Home
from baker.core.ledger import BuildLedger, Ledger
from baker.core.model import Identity
from baker.core.resources import Resources
from baker.machines import registry
from baker.machines.identity import make_identity, user_data, write_credentials, write_seed
from baker.machines.libvirt.connection import is_embedded, is_session
from baker.machines.libvirt.firmware import copy_variables, find
from baker.machines.libvirt.reclaim import end_qemu, qemu_processes
from tests.support.until import until

# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("id") / "new", "My Web_Server.", "debian")


def test_keys_are_new_private_and_a_pair(identity: Identity, tmp_path: Path) -> None:
    for key in (identity.client_key, identity.host_key):
        assert key.stat().st_mode & 0o777 == 0o600
        derived = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
        assert derived.split()[:2] == key.with_suffix(".pub").read_text().split()[:2]
    assert identity.client_public.startswith("ssh-ed25519 ")
    assert make_identity(tmp_path, "x", "root").client_public != identity.client_public


@pytest.mark.parametrize(("name", "host"), [("web", "web"), ("My Web_1", "my-web-1"), ("--", "bake"), ("", "bake"), ("a" * 80, "a" * 63)])
def test_a_host_name_is_one_that_may_be(tmp_path: Path, name: str, host: str) -> None:
    assert make_identity(tmp_path, name, "root").hostname == host


def test_credentials_are_private_files_of_raw_bytes(identity: Identity, tmp_path: Path) -> None:
    files = write_credentials(identity, tmp_path)
    assert set(files) == {"ssh.authorized_keys.root", "bake.ssh_host_ed25519_key", "system.hostname"}
    assert files["bake.ssh_host_ed25519_key"].read_bytes() == identity.host_key.read_bytes()
    assert files["ssh.authorized_keys.root"].read_text() == identity.client_public + "\n"
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}


def test_the_seed_is_a_file_system_that_cloud_init_finds(identity: Identity, tmp_path: Path) -> None:
    seed = write_seed(identity, tmp_path / "seed.img")
    assert seed.stat().st_mode & 0o777 == 0o600
    label = subprocess.run(["blkid", "-p", "-o", "value", "-s", "LABEL", seed], capture_output=True, text=True, check=True).stdout
    assert label.strip() == "CIDATA"
    text = subprocess.run(["mtype", "-i", seed, "::user-data"], capture_output=True, text=True, check=True).stdout
    first, _, rest = text.partition("\n")
    assert first == "#cloud-config"
    data = json.loads(rest)
    assert data["ssh_keys"]["ed25519_private"] == identity.host_key.read_text()
    assert data["disable_root"] is False
    assert data["users"][1]["name"] == "debian" and data["users"][1]["ssh_authorized_keys"] == [identity.client_public]
    meta = json.loads(subprocess.run(["mtype", "-i", seed, "::meta-data"], capture_output=True, text=True, check=True).stdout)
    assert meta["local-hostname"] == identity.hostname


def test_each_identity_is_a_new_instance_to_cloud_init(identity: Identity, tmp_path: Path) -> None:
    def instance(who: Identity, path: Path) -> str:
        write_seed(who, path)
        return str(json.loads(path.with_name(path.name + ".d").joinpath("meta-data").read_text())["instance-id"])

    other = make_identity(tmp_path / "other", "x", "root")
    assert instance(identity, tmp_path / "a") != instance(other, tmp_path / "b")
    assert "users" not in user_data(other)


# --- resources --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[BuildLedger]:
    with Ledger(tmp_path / "ledger").open("b1") as ledger:
        yield ledger


def kept(ledger: BuildLedger) -> list[str]:
    return [json.loads(path.read_text())["kind"] for path in sorted(ledger.directory.glob("*.json"))]


def test_resources_are_released_newest_first_and_struck_out(ledger: BuildLedger) -> None:
    order: list[str] = []
    resources = Resources(ledger)
    resources.enter("directory", lambda: order.append("directory"), path="/x")
    resources.enter("domain", lambda: order.append("domain"), name="m")
    assert kept(ledger) == ["directory", "domain"]
    resources.release()
    assert (order, kept(ledger)) == (["domain", "directory"], [])


class Stuck:
    """What cannot be deleted the first `times` times."""

    def __init__(self, name: str, times: int) -> None:
        self.name, self.times = name, times

    def __call__(self) -> None:
        self.times -= 1
        if self.times >= 0:
            raise OSError(f"{self.name} is stuck")


def test_what_cannot_be_released_stays_in_the_ledger_and_is_tried_again(ledger: BuildLedger) -> None:
    resources = Resources(ledger)
    resources.enter("directory", lambda: None, path="/x")
    resources.enter("domain", Stuck("one", 2), name="m")
    resources.enter("domain", Stuck("two", 1), name="n")
    with pytest.raises(OSError, match="two is stuck") as stuck:
        resources.release()
    assert ["one is stuck" in note for note in stuck.value.__notes__] == [True]
    assert kept(ledger) == ["domain", "domain"]
    error = ValueError("why")
    resources.release_after(error)
    assert [("one is stuck" in note, "bake sweep" in note) for note in error.__notes__] == [(True, True)]
    resources.release()
    assert kept(ledger) == []


def test_a_kind_and_details_choose_what_is_released_or_kept(ledger: BuildLedger) -> None:
    gone: list[str] = []
    resources = Resources(ledger)
    for number, (kind, region) in enumerate((("image", "a"), ("image", "b"), ("disk", "a"), ("disk", "b"))):
        resources.enter(kind, partial(gone.append, f"{kind} {region}"), region=region, number=number)
    resources.release("image", region="a")
    assert (gone, kept(ledger)) == (["image a"], ["image", "disk", "disk"])
    resources.keep(region="b")
    assert (gone, kept(ledger)) == (["image a"], ["disk"])
    resources.release()
    assert (gone, kept(ledger)) == (["image a", "disk a"], [])


def test_a_resource_whose_id_is_not_known_yet_is_in_the_ledger(ledger: BuildLedger) -> None:
    resources = Resources(ledger)
    seen: list[Mapping[str, object]] = []

    def create() -> str:
        assert [dict(entry.details) for entry in ledger.entries] == [{"region": "a"}]
        return "i-1"

    def lost() -> str:
        raise OSError("no answer")

    assert resources.create("machine", create, seen.append, region="a") == "i-1"
    assert [dict(entry.details) for entry in ledger.entries] == [{"region": "a", "id": "i-1"}]
    with pytest.raises(OSError, match="no answer"):
        resources.create("machine", lost, seen.append, region="b")
    resources.release()
    assert (seen, kept(ledger)) == ([{"region": "b"}, {"region": "a", "id": "i-1"}], [])


def test_what_a_killed_process_of_the_same_run_left_is_adopted(ledger: BuildLedger) -> None:
    order: list[str] = []
    left = ledger.enter("image", name="old")
    resources = Resources(ledger)
    resources.adopt(left, lambda: order.append("old"))
    resources.enter("image", lambda: order.append("new"), name="new")
    resources.release()
    assert (order, kept(ledger)) == (["new", "old"], [])


# --- registry and URIs --------------------------------------------------------------------------------------------------


def test_the_registry_names_what_there_is(tmp_path: Path) -> None:
    home = Home.from_environment({"BAKE_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert "libvirt" in registry.kinds()
    assert registry.get("libvirt")(home).kind == "libvirt"
    assert [builder.kind for builder in registry.all_for_sweep(home)] == list(registry.kinds())
    with pytest.raises(UsageError, match="no builder 'virtualbox'"):
        registry.get("virtualbox")


def test_the_registry_loads_no_libvirt_by_itself() -> None:
    code = "import sys, baker.machines.registry, baker.machines.ssh.client; sys.exit('libvirt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_builders_entries_are_left_alone(tmp_path: Path) -> None:
    home = Home.from_environment({"BAKE_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert registry.get("libvirt")(home).reclaim("ec2:instance", {"id": "i-1"}) is False


@pytest.mark.parametrize(
    ("uri", "embedded", "session"),
    [
        (None, True, False),
        ("qemu:///embed", True, False),
        ("qemu:///session", False, True),
        ("qemu:///system", False, False),
        ("qemu+ssh://root@host/session", False, False),
        ("qemu+ssh://host/system", False, False),
    ],
)
def test_uris_are_told_apart(uri: str | None, embedded: bool, session: bool) -> None:
    assert is_embedded(uri) is embedded
    assert is_session(uri or "") is session


# --- firmware -----------------------------------------------------------------------------------------------------------


def test_firmware_is_found_copied_and_missed(tmp_path: Path) -> None:
    code, variables = tmp_path / "code", tmp_path / "vars"
    code.write_bytes(b"code")
    variables.write_bytes(b"vars")
    places = (("/no/code", "/no/vars"), (str(code), "/no/vars"), (str(code), str(variables)))
    assert find(places) == (code, variables)
    copy = copy_variables(variables, tmp_path / "copy")
    assert copy.read_bytes() == b"vars" and copy.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostError, match="OVMF") as error:
        find(places[:2])
    assert error.value.code == "host.no-uefi-firmware" and "apt-get install ovmf" in error.value.hint


# --- ending a dead build's QEMU ---------------------------------------------------------------------------------------


def test_only_the_process_with_our_uuid_is_ended(tmp_path: Path) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    os.symlink("/bin/sleep", fake)
    script = 'exec -a "$1" sh -c "sleep 60; :" sh -uuid "$2"'
    ours, others = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    children = [subprocess.Popen(["bash", "-c", script, "bash", str(fake), uuid], start_new_session=True) for uuid in (ours, others)]
    try:
        until(lambda: list(qemu_processes(ours)) and list(qemu_processes(others)), 10, "both processes have their names")
        end_qemu(ours)
        assert children[0].wait(10) == -9
        assert children[1].poll() is None
        assert list(qemu_processes(ours)) == []
        end_qemu(ours)  # gone already: nothing to do
    finally:
        for child in children:
            try:
                os.killpg(child.pid, 9)
            except ProcessLookupError:
                pass
            child.wait()
