"""Secret values: masked in all text that leaves the process, and replaced by keyed hashes in records and keys."""

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

SEALED = "{{secret "  # the beginning of what replaces a sealed value
KEY_BYTES = 32
SHORTEST_FORM = 4  # characters; shorter encoded forms occur in unrelated text


@dataclass(frozen=True)
class Secrets:
    """The sensitive values of one build by variable name. Its `repr` does not show them."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: bytes = field(default=b"", repr=False)  # key of the hashes: one per catalog, in no record

    def mask(self, text: str) -> str:
        """Replace every form of every secret in `text` (plain, quoted, base64, hex, URL, JSON) by `***`."""
        forms = self._forms()
        if "\n" in text:
            text = self._mask_lines(_replace(text, [form for form in forms if "\n" in form]))
        return _replace(text, forms)

    def lines(self) -> SecretLines:
        """A masker of secrets of several lines, for text that arrives line by line. Each line must also be masked with `mask`."""
        return SecretLines(self.values.values())

    def _mask_lines(self, text: str) -> str:
        """Mask secrets of several lines in `text` that are indented, have a prefix before each line, or have other line ends."""
        lines = self.lines()
        return "\n".join([each for line in text.split("\n") for each in lines.feed(line)] + lines.flush()) if lines else text

    def seal(self, text: str) -> str:
        """Replace each secret value in `text` by `{{secret NAME HASH}}`, for keys and records.

        HASH is the HMAC-SHA256 (RFC 2104) with this catalog's key, truncated to 128 bits. Equal secrets have equal hashes, and a guess
        cannot be tested without the key.
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
    """The forms that `value` may have in text: plain, each line, shell-quoted, JSON, URL, hex, and inside base64 at any offset."""
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
    forms |= {form for line in lines for form in (line, line.strip()) if len(form) >= LONG}  # a shell joins unquoted lines with spaces
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
    """The key of the keyed hashes: 32 random bytes in `data/secret.key`, created at first use, readable by the user only.

    The file is created atomically, so that no other process reads a part of the key: hashes with a short key would reveal secrets.
    HostError when the file has another size.
    """
    import tempfile  # here because it takes longer to load than everything else in this module

    path = ensure(data) / "secret.key"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=data, prefix=".secret.key.") as file:  # mode 0600
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, path)
            except FileExistsError:
                pass  # another process has just created it
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise HostError(
            f"{path} has {len(key)} bytes instead of {KEY_BYTES}",
            hint="restore it from a backup; if there is none, remove the file: the hashes of secret values will change",
            code="host.secret-key-damaged",
        )
    return key
