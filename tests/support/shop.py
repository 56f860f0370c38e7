"""A home with two signed images, and methods to tamper with its content."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import sqlite3
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from baker.artifacts import codecs
from baker.artifacts.disk import stored
from baker.catalog.records import ImageRecord
from baker.core.model import Disk
from baker.disks.raw import raw_digest
from baker.trust.attest.signing import attest
from tests.support.fake_app import Cli, FakeBaker, a_build, an_image


def qcow2(path: Path, byte: bytes, backing: Path | None = None) -> Disk:
    """A small disk with some bytes, on `backing` if given."""
    based = ["-b", str(backing), "-F", "qcow2"] if backing else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *based, str(path), "1M"], check=True)
    subprocess.run(["qemu-io", "-c", f"write -P {ord(byte)} {'64k' if backing else '0'} 4k", str(path)], check=True, capture_output=True)
    return Disk(path, "qcow2", 1 << 20)


def register(baker: FakeBaker, image: ImageRecord, chain: tuple[str, ...], **changes: object) -> ImageRecord:
    """Register an image with this disk and its digest."""
    image = replace(image, chain=chain, virtual_size=1 << 20)
    image = replace(image, digest=raw_digest(stored(image, baker.store)))
    lines = [json.dumps({"method": "GET", "url": "http://deb/nginx.deb", "status": 200, "digest": "sha256:" + "9" * 64})]
    kept = {
        "log": baker.store.add_bytes(codecs.pack_text(f"log of {image.name}")),
        "fetches": baker.store.add_bytes(codecs.pack_lines(lines)),
    }
    build = a_build(image, evidence=kept, inputs={"files/a": "1" * 64}, **changes)
    text = hashlib.sha256(build.template_text.encode()).hexdigest()
    baker.catalog.register(replace(build, template_digest=f"sha256:{text}"), image)
    return image


@dataclass
class Shop:
    """A base and an image on it, both signed by `default`; `ci` is a second key."""

    cli: Cli
    base: ImageRecord
    web: ImageRecord

    @property
    def baker(self) -> FakeBaker:
        return self.cli.baker

    @property
    def data(self) -> Path:
        return self.cli.home / "data"

    def sql(self, *statements: str) -> None:
        with sqlite3.connect(self.data / "catalog.sqlite") as connection:
            for statement in ("DROP TRIGGER IF EXISTS journal_no_update", "DROP TRIGGER IF EXISTS journal_no_delete", *statements):
                changed = connection.execute(statement)
                assert changed.rowcount, f"nothing was changed by {statement}"
        connection.close()

    def flip(self, digest: str) -> None:
        """Change the last byte of a blob."""
        path = self.baker.store.path(digest)
        path.chmod(0o600)
        path.write_bytes((data := path.read_bytes())[:-1] + bytes([data[-1] ^ 1]))

    def failed(self, *options: str | Path) -> list[str]:
        """The failed checks of `bake verify web`: "name subject: detail"."""
        result = self.cli("verify", "web", "--json", *options)
        checks = json.loads(result.out)["checks"]
        found = [f"{each['name']} {each['subject'].partition('@')[0]}: {each['detail']}" for each in checks if each["ok"] is False]
        assert result.code == (4 if found else 0), result.err
        return found

    def audited(self) -> list[str]:
        """The failed checks of `bake audit web`: "name: detail"."""
        result = self.cli("audit", "web", "--json")
        checks = json.loads(result.out)["checks"]
        found = [f"{each['name']}: {each['detail']}" for each in checks if each["status"] == "failed"]
        assert result.code == (4 if found else 0), result.err
        return found


def open_shop(directory: Path) -> Shop:
    """debian-13 13.1.0 and its child web 1.4.0, in a copy of a home that each process creates once."""
    made = _made()
    shutil.copytree(made.cli.home, directory / "home")
    return replace(made, cli=Cli(directory / "home"))


@cache
def _made() -> Shop:
    directory = Path(tempfile.mkdtemp(prefix="bake-shop-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    cli = Cli(directory / "home")
    for name in ("default", "ci"):
        assert cli("keys", "create", name).code == 0
    with cli.baker as baker:
        base = baker.store.add_disk(qcow2(directory / "base.qcow2", b"b"), None)
        first = register(baker, an_image("debian-13", "13.1.0", 1), (base,))
        delta = baker.store.add_disk(qcow2(directory / "web.qcow2", b"w", baker.store.path(base)), base)
        source = {"kind": "image", "title": "debian-13@13.1.0", "digest": first.digest, "pins": {"image": first.id}}
        web = an_image("web", "1.4.0", 2, parent=first.id)
        web = register(baker, web, (delta, base), reproduction={"layout": {"version": 1}}, source=source)
        for image in (first, web):
            attest(image, baker.trust)
    return Shop(cli, first, web)
