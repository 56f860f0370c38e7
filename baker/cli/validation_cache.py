"""What `bake validate` remembers: that a template was valid, with everything that this depended on.

Looking whether all of that is still so takes a few system calls; loading a template takes the libraries that read YAML and check types.
Only "valid" is remembered, and nothing where a sensitive value took part. Contents, values and command lines are kept as
hashes under the user's secret key (BLAKE2b, RFC 7693), so that nobody can test a guess. Deleting the directory is always safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baker.core.home import PACKAGE, Home
from baker.core.version import VERSION
from baker.template.dependencies import kind, real

if TYPE_CHECKING:
    from baker.template.dependencies import Observed

MOST = 200  # verdicts that are kept
LIBRARIES = ("pydantic", "pydantic_core", "yaml")  # they have a say in what is valid
CODE = (".", "template", "provision", "cli")


class Verdicts:
    """The remembered verdicts of one user, as seen by one run of bake."""

    def __init__(self, home: Home, env: Mapping[str, str]) -> None:
        self._directory = home.cache / "validated"
        self._key_file = home.data / "secret.key"
        self._env = env
        self._code = _code()  # before any more of it is loaded: what is noted is at most older than what ran

    def find(self, question: Sequence[Any]) -> list[dict[str, str]] | None:
        """The images of a template that was valid and still is; None when nobody knows. `question`: file and options, as typed."""
        try:
            key = self._key()
            found = json.loads((self._directory / _name(key, question)).read_bytes())
            return list(found["images"]) if self._holds(found, key) else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # not there, or not by us

    def keep(self, question: Sequence[Any], observed: Observed, images: Sequence[Mapping[str, str]]) -> None:
        """Remember that `question` had the answer "valid", unless it depended on something that cannot be checked."""
        if observed.doubts or not self._code:
            return
        try:
            key = self._key()
            text = json.dumps(self._verdict(observed, images, key))
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room()
            temporary = self._directory / f".{os.getpid()}"
            temporary.write_text(text)
            temporary.replace(self._directory / _name(key, question))
        except OSError:
            return  # the next time it is worked out again

    def _key(self) -> bytes:
        key = self._key_file.read_bytes()
        if len(key) < 16:
            raise ValueError("no key")
        return key[:64]

    def _verdict(self, observed: Observed, images: Sequence[Mapping[str, str]], key: bytes) -> dict[str, Any]:
        return {
            "code": self._code,
            "libraries": {file: _stamp(file) for name in LIBRARIES if (file := getattr(sys.modules.get(name), "__file__", None))},
            "contents": {path: _hash(key, data) for path, data in observed.contents.items()},
            "real": observed.real,
            "kinds": observed.kinds,
            "environment": {name: _hash_text(key, value) for name, value in observed.environment.items()},
            "images": [dict(image) for image in images],
        }

    def _holds(self, found: Mapping[str, Any], key: bytes) -> bool:
        """Whether everything is as it was."""
        return (
            bool(self._code)
            and found["code"] == self._code
            and all(_stamp(file) == stamp for file, stamp in found["libraries"].items())
            and all(_hash_text(key, self._env.get(name)) == value for name, value in found["environment"].items())
            and all(real(path) == names for path, names in found["real"].items())
            and all(kind(path) == name for path, name in found["kinds"].items())
            and all(_hash(key, Path(path).read_bytes()) == value for path, value in found["contents"].items())
        )

    def _make_room(self) -> None:
        """Forget the oldest half when there are too many."""
        files = list(self._directory.iterdir())
        if len(files) >= MOST:
            for file in sorted(files, key=lambda each: each.stat().st_mtime)[: MOST // 2]:
                file.unlink(missing_ok=True)


def _name(key: bytes, question: Sequence[Any]) -> str:
    return _hash(key, json.dumps([str(Path.cwd()), *question]).encode()) + ".json"


def _hash(key: bytes, data: bytes) -> str:
    return hashlib.blake2b(data, key=key, digest_size=32).hexdigest()


def _hash_text(key: bytes, text: str | None) -> str | None:
    return None if text is None else _hash(key, text.encode("utf-8", "surrogateescape"))


def _stamp(file: str) -> list[int]:
    found = Path(file).stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _code() -> str:
    """What says that bake itself is the same: version, interpreter, and its own files by size and time. "" when they cannot be seen."""
    root = PACKAGE
    try:
        files = [entry for each in CODE for entry in os.scandir(root / each) if entry.name.endswith(".py")]
        stamps = sorted((file.path, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError:
        return ""
    return hashlib.blake2b(repr((VERSION, sys.version, stamps)).encode(), digest_size=32).hexdigest()
