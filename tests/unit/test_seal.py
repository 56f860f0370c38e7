from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from baker.build.seal import SEAL_RULES, seal, seal_script
from baker.core.errors import BuildError
from baker.core.events import Memory, Message, Reporter
from baker.core.model import Identity
from tests.support.documents import seal_rules_table
from tests.support.fakes import FakeCommunicator, ended

DOCS = Path(__file__).parents[2] / "docs/seal.md"


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    (tmp_path / "client.pub").write_text("ssh-ed25519 AAAAC3thekey bake\n")
    return Identity("web", "root", tmp_path / "client", tmp_path / "host")


def test_the_documentation_lists_the_rules_as_they_are() -> None:
    assert seal_rules_table() in DOCS.read_text(), "write what tests.support.documents.seal_rules_table() returns into docs/seal.md"


def test_every_rule_says_what_and_why() -> None:
    assert len({rule.name for rule in SEAL_RULES}) == len(SEAL_RULES)
    assert all(rule.removes and rule.reason and rule.script.strip() for rule in SEAL_RULES)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_is_valid_shell(shell: str) -> None:
    subprocess.run([shell, "-n"], input=seal_script(SEAL_RULES), text=True, check=True)


def test_it_reports_what_each_rule_did(identity: Identity) -> None:
    guest, events = FakeCommunicator(), Memory()
    guest.answers["rule="] = ended(
        0, "seal\tmachine-id\temptied /etc/machine-id\nnoise\nseal\tlogs\temptied /var/log/a\nseal\tlogs\temptied /var/log/b\n"
    )
    report = seal(guest, identity, Reporter(events))
    assert report.actions["machine-id"] == ("emptied /etc/machine-id",)
    assert report.actions["logs"] == ("emptied /var/log/a", "emptied /var/log/b")
    assert report.actions["mail"] == ()
    said = [event.text for event in events.events if isinstance(event, Message)]
    assert any(f"2 of {len(SEAL_RULES)}" in text for text in said)


def test_the_key_is_looked_for_by_its_content_and_not_in_the_script(identity: Identity) -> None:
    guest = FakeCommunicator()
    seal(guest, identity, Reporter(Memory()))
    assert guest.calls[0].env == {"BAKE_KEY": "AAAAC3thekey"}
    assert "AAAAC3thekey" not in guest.calls[0].script


def test_rules_can_be_kept_from_running(identity: Identity) -> None:
    guest = FakeCommunicator()
    report = seal(guest, identity, Reporter(Memory()), keep=["package-lists"])
    assert "package-lists" not in report.actions
    assert "/var/lib/apt/lists" not in guest.calls[0].script


def test_a_rule_that_fails_fails_the_build(identity: Identity) -> None:
    guest = FakeCommunicator()
    guest.answers["rule="] = ended(1, "seal-failed\tlogs\n", "find: /var/log: Input/output error\n")
    with pytest.raises(BuildError, match=r"rule logs .*exit code 1\nfind: /var/log: Input/output error") as caught:
        seal(guest, identity, Reporter(Memory()))
    assert caught.value.code == "seal.rule-failed"
