"""Which accelerator: the decision and its memory, with a probe of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from baker.core.errors import HostError
from baker.machines.libvirt.accelerator import ProbeResult, decide, host_kernel, run_probe


class Probe:
    def __init__(self, works: bool, words: str) -> None:
        self.verdict, self.calls = ProbeResult(works, words), 0

    def __call__(self, binary: Path, kernel: Path) -> ProbeResult:
        self.calls += 1
        return self.verdict


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def kernel() -> Path:
    return Path("/boot/vmlinuz")


def test_the_probe_decides_and_its_words_are_the_reason(tmp_path: Path, device: Path) -> None:
    bad = decide("auto", cache=tmp_path / "a", kernel=kernel, device=device, probe=Probe(False, "the kernel fell silent"))
    good = decide("auto", cache=tmp_path / "b", kernel=kernel, device=device, probe=Probe(True, "it ran"))
    assert (bad.name, bad.reason) == ("tcg", "the kernel fell silent")
    assert (good.name, good.reason) == ("kvm", "it ran")


def test_the_answer_is_remembered_until_the_host_boots_again(tmp_path: Path, device: Path) -> None:
    probe = Probe(True, "it ran")
    first = decide("auto", cache=tmp_path, kernel=kernel, device=device, probe=probe)
    assert decide("auto", cache=tmp_path, kernel=kernel, device=device, probe=probe) == first
    assert probe.calls == 1
    memory = tmp_path / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memory.write_text(memory.read_text().replace(boot, "another-boot"))
    decide("auto", cache=tmp_path, kernel=kernel, device=device, probe=probe)
    assert probe.calls == 2


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", '{"key": 1}'])
def test_a_broken_memory_is_no_memory(tmp_path: Path, device: Path, text: str) -> None:
    (tmp_path / "accelerator.json").write_text(text)
    assert decide("auto", cache=tmp_path, kernel=kernel, device=device, probe=Probe(True, "it ran")).name == "kvm"


def test_without_a_kernel_kvm_is_not_believed_and_nothing_is_remembered(tmp_path: Path, device: Path) -> None:
    probe = Probe(True, "it ran")
    assert decide("auto", cache=tmp_path, kernel=lambda: None, device=device, probe=probe).name == "tcg"
    assert decide("auto", cache=tmp_path, kernel=kernel, device=device, probe=probe).name == "kvm"


def test_no_device_means_tcg_and_forcing_kvm_is_an_error(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    probe = Probe(True, "never asked")
    assert decide("auto", cache=tmp_path, kernel=kernel, device=absent, probe=probe).reason == f"there is no {absent}"
    with pytest.raises(HostError, match=str(absent)) as error:
        decide("kvm", cache=tmp_path, kernel=kernel, device=absent, probe=probe)
    assert error.value.code == "host.no-kvm"
    assert probe.calls == 0


def test_what_is_asked_for_is_taken_without_a_probe(tmp_path: Path, device: Path) -> None:
    probe = Probe(False, "never asked")
    assert decide("kvm", cache=tmp_path, kernel=kernel, device=device, probe=probe).name == "kvm"
    assert decide("tcg", cache=tmp_path, kernel=kernel, device=device, probe=probe).name == "tcg"
    assert probe.calls == 0


def test_a_host_kernel_is_the_newest_that_may_be_read(tmp_path: Path) -> None:
    for age, name in enumerate(("vmlinuz-6.9", "vmlinuz-6.12")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    (tmp_path / "vmlinuz-directory").mkdir()
    assert host_kernel((f"{tmp_path}/nothing-*", f"{tmp_path}/vmlinuz-*")) == tmp_path / "vmlinuz-6.12"
    assert host_kernel((f"{tmp_path}/nothing-*",)) is None


# --- the probe itself, with programs that behave as QEMU does ---------------------------------------------------------


def program(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_panic_on_the_console_proves_that_the_guest_ran(tmp_path: Path) -> None:
    verdict = run_probe(program(tmp_path, "echo Linux version; echo 'Kernel panic - not syncing: VFS: no root'; sleep 60"), kernel())
    assert verdict == ProbeResult(True, "the probe's kernel ran under KVM")


def test_a_qemu_that_dies_is_quoted(tmp_path: Path) -> None:
    verdict = run_probe(program(tmp_path, "echo Probing EDD; echo 'failed to set MSR 0x10a' >&2; exit 134"), kernel())
    assert verdict == ProbeResult(False, "QEMU ended under KVM: failed to set MSR 0x10a")


def test_a_guest_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    verdict = run_probe(program(tmp_path, "echo Probing EDD; exec sleep 60"), kernel(), silence=0.3)
    assert verdict == ProbeResult(False, "the probe's kernel did not finish under KVM")
