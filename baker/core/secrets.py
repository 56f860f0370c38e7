"""Secret values: masked wherever text leaves the process, and replaced by keyed hashes wherever a record or key is made of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import shlex
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baker.core.errors import HostError
from baker.core.home import ensure
from baker.core.secret_lines import LONG, MASK, SecretLines

SEALED = "{{secret "  # how the place of a sealed value begins
KEY_BYTES = 32
SHORTEST_FORM = 4  # a shorter encoded form would blank out unrelated text


@dataclass(frozen=True)
class Secrets:
    """The sensitive values of one build by variable name. Its `repr` shows none of them."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: bytes = field(default=b"", repr=False)  # of the keyed hash: one per catalog, never in a record

    def mask(self, text: str) -> str:
        """`text` with every form of every secret (plain, quoted, base64, hex, URL, JSON) replaced by `***`."""
        forms = self._forms()
        if "\n" in text:
            text = self._mask_lines(_replace(text, [form for form in forms if "\n" in form]))
        return _replace(text, forms)

    def lines(self) -> SecretLines:
        """What finds secrets of several lines in lines that come one by one; each is to be masked by `mask` as well."""
        return SecretLines(self.values.values())

    def _mask_lines(self, text: str) -> str:
        """`text` without the lines of a secret that stands in it changed: indented, with marks before each line, with other line ends."""
        lines = self.lines()
        return "\n".join([each for line in text.split("\n") for each in lines.feed(line)] + lines.flush()) if lines else text

    def seal(self, text: str) -> str:
        """`text` with each secret value replaced by `{{secret NAME HASH}}`: what goes into keys and records.

        HASH is HMAC-SHA256 (RFC 2104) under this catalog's key, cut to 128 bits: equal secrets give equal keys, and nobody
        without the key can test a guess.
        """
        for name, value in sorted(self.values.items(), key=lambda item: -len(item[1])):
            for form in _seal_forms(value):
                text = text.replace(form, f"{SEALED}{name} {self.hash(value)}}}}}")
        return text

    def hash(self, value: str) -> str:
        return hmac.new(self.key, value.encode(), hashlib.sha256).hexdigest()[:32]

    def _forms(self) -> list[str]:
        forms: set[str] = set()
        for value in self.values.values():
            forms |= forms_of(value)
        return sorted(forms, key=len, reverse=True)


def _replace(text: str, forms: list[str]) -> str:
    for form in forms:
        if form in text:
            text = text.replace(form, MASK)
    return text


def forms_of(value: str) -> set[str]:
    """The ways in which `value` may stand in text: plain, each line, shell-quoted, JSON, URL, hex, and inside base64 at any offset."""
    if not value:
        return set()
    raw = value.encode()
    forms = {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        shlex.quote(value),
        urllib.parse.quote(value, safe=""),
    }
    forms |= {urllib.parse.quote_plus(value), raw.hex(), raw.hex().upper(), value.replace("'", "'\"'\"'"), value.replace("'", "'\\''")}
    lines = value.splitlines()
    forms |= {form for line in lines for form in (line, line.strip()) if len(form) >= LONG}  # unquoted, a shell joins them by spaces
    for offset in range(3):
        # the base64 characters that depend on this value alone when it starts at `offset` modulo 3 inside a longer text
        encoded = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[offset] :]
        inner = inner[: len(inner) - 1] if (len(raw) + offset) % 3 else inner
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= SHORTEST_FORM or form == value}


def _seal_forms(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])))


def catalog_key(data: Path) -> bytes:
    """The key of the keyed hashes: 32 random bytes in `data/secret.key`, made at first use, readable by the user only.

    It is there whole or not at all, also for another process at the same moment: hashes under half a key would tell secrets.
    """
    import tempfile  # it takes longer to load than all the rest here

    path = ensure(data) / "secret.key"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=data, prefix=".secret.key.") as file:  # mode 0600
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, path)
            except FileExistsError:
                pass  # somebody else was faster
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise HostError(
            f"{path} has {len(key)} bytes instead of {KEY_BYTES}",
            hint="restore it from a backup; if there is none, remove the file: the hashes of secret values will change",
            code="host.secret-key-damaged",
        )
    return key
