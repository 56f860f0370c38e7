"""Secrets: masked in every form in which they could leave, keyed hashes in records."""

import base64
import json
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from baker.core.errors import HostError
from baker.core.events import Memory, Message, Output, StepFinished
from baker.core.secrets import Secrets, catalog_key
from baker.render.mask import MaskingSink

VALUE = "p4ss \"word'$x/=ü"
SECRETS = Secrets({"token": VALUE}, b"k" * 32)

FORMS = {
    "plain": VALUE,
    "shell-quoted": shlex.quote(VALUE),
    "JSON": json.dumps({"a": VALUE}),
    "JSON, unicode kept": json.dumps({"a": VALUE}, ensure_ascii=False),
    "URL": "https://u:" + urllib.parse.quote(VALUE, safe="") + "@host/",
    "form": urllib.parse.urlencode({"a": VALUE}),
    "hex": VALUE.encode().hex(),
    **{f"base64 after {n} bytes": base64.b64encode(b"x" * n + VALUE.encode() + b"tail").decode() for n in range(4)},
    "base64 for URLs": base64.urlsafe_b64encode(b"??>" + VALUE.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_masked(form: str) -> None:
    masked = SECRETS.mask(f"before {form} after")
    assert "***" in masked
    assert masked.startswith("before ") and masked.endswith(" after")
    for part in (VALUE, base64.b64encode(VALUE.encode()).decode()[4:16], "p4ss"):
        assert part not in masked


def test_text_without_secrets_stays_as_it_is() -> None:
    assert SECRETS.mask("nothing to see: pass word") == "nothing to see: pass word"


def test_each_line_of_a_secret_with_several_is_masked() -> None:
    key = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END KEY-----"
    assert "b3BlbnNzaC1rZXktdjEAAAAA" not in Secrets({"key": key}).mask("line: b3BlbnNzaC1rZXktdjEAAAAA")


SHORT_LINES = '{\n  "pin": 1\n\n  x9,\n  8842\n}\n'


@pytest.mark.parametrize(
    "printed", [SHORT_LINES, SHORT_LINES.replace("\n", "\r\n"), "    " + SHORT_LINES.replace("\n", "\n    "), "key: " + SHORT_LINES + "end"]
)
def test_no_line_of_a_secret_that_is_printed_whole_shows(printed: str) -> None:
    masked = Secrets({"key": SHORT_LINES}).mask(f"before\n{printed}\nafter {{\n}}")
    assert masked.startswith("before\n") and masked.endswith("\nafter {\n}"), "the same signs elsewhere are no secret"
    assert not any(part in masked for part in ("pin", "x9", "8842"))


def test_a_secret_whose_lines_a_shell_joins_by_spaces_does_not_show() -> None:
    secret = '{\n  "private_key": "abcdefghijkl",\n  "client_id": "mnopqrstuvwx"\n}'
    heard = Memory()
    sink = MaskingSink(heard, Secrets({"key": secret}))
    sink.emit(Output(line=" ".join(secret.split()), step="one", stream="stdout"))
    sink.emit(StepFinished(index=1, step="one", seconds=1.0, ok=True))
    (line,) = (event.line for event in heard.events if isinstance(event, Output))
    assert not any(part in line for part in ("abcdefghijkl", "mnopqrstuvwx")), line


def test_a_secret_that_comes_line_by_line_is_masked_and_other_lines_keep_their_order() -> None:
    heard = Memory()
    sink = MaskingSink(heard, Secrets({"key": SHORT_LINES}))
    printed = ["{", '  "other": 2', "}", *SHORT_LINES.splitlines(), "}", "8842 is a number", "{"]
    for number, line in enumerate(printed):
        sink.emit(Output(line=line, step="one", stream="stdout"))
        sink.emit(Output(line=str(number), step="one", stream="stderr"))
        sink.emit(Message(text="meanwhile"))
    sink.emit(StepFinished(index=1, step="one", seconds=1.0, ok=True))
    lines = [event.line for event in heard.events if isinstance(event, Output) and event.stream == "stdout"]
    assert lines == ["{", '  "other": 2', "}", "***", "  ***", "", "  ***", "  ***", "***", "}", "8842 is a number", "{"]
    assert [event.line for event in heard.events if isinstance(event, Output) and event.stream == "stderr"] == [
        str(number) for number in range(len(printed))
    ]
    assert isinstance(heard.events[-1], StepFinished)


def test_the_keyed_hash_depends_on_the_value_and_on_the_key() -> None:
    text = json.dumps({"password": VALUE})
    sealed = SECRETS.seal(text)
    assert VALUE not in sealed and "p4ss" not in sealed
    assert json.loads(sealed)["password"].startswith("{{secret token ")
    assert sealed == SECRETS.seal(text)
    assert sealed != Secrets({"token": VALUE}, b"j" * 32).seal(text)
    assert sealed != Secrets({"token": VALUE + "x"}, b"k" * 32).seal(json.dumps({"password": VALUE + "x"}))


def test_no_value_shows_in_a_repr() -> None:
    assert "p4ss" not in repr(SECRETS) and "kkkk" not in repr(SECRETS)


def test_the_catalogs_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = catalog_key(tmp_path / "data")
    assert len(key) == 32 and catalog_key(tmp_path / "data") == key
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600


def test_processes_that_want_the_catalogs_key_at_once_get_the_same_whole_one(tmp_path: Path) -> None:
    program = (
        f"from pathlib import Path; from baker.core.secrets import catalog_key; print(catalog_key(Path({str(tmp_path / 'data')!r})).hex())"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate()[0].strip() for process in running}
    assert keys == {catalog_key(tmp_path / "data").hex()}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret.key"]


@pytest.mark.parametrize("left", [b"", b"half a key"])
def test_what_is_no_whole_key_is_not_used(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "secret.key").write_bytes(left)
    with pytest.raises(HostError, match="32") as error:
        catalog_key(tmp_path)
    assert error.value.code == "host.secret-key-damaged"
