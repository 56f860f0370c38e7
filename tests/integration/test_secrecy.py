"""A sensitive variable is used by a build and found nowhere afterwards, in no form."""

import base64
import gzip
import hashlib
import shlex
import threading
import urllib.parse
from pathlib import Path

import pytest

from tests.support.cli import Bake

pytestmark = pytest.mark.vm
SECRET = "c0rrect-h0rse 'battery' $taple/=+?"
FORMS = {
    SECRET.encode(),
    shlex.quote(SECRET).encode(),
    urllib.parse.quote(SECRET, safe="").encode(),
    SECRET.encode().hex().encode(),
    *(base64.b64encode(b"x" * n + SECRET.encode())[4:-4] for n in range(3)),
    b"c0rrect-h0rse",
}
TEMPLATE = """\
schema: 1
name: secretive
version: 1.0.0
source: {image: debian-13}
builder: {cpus: 1, memory: 512MiB}
variables:
  token: {type: string, sensitive: true}
provisioners:
  - name: use it
    shell:
      env: {TOKEN: "${{ var.token }}"}
      inline:
        - printf %s "$TOKEN" | sha256sum | cut -d" " -f1 > /etc/token-digest
        - echo "the token is $TOKEN"
        - printf %s "$TOKEN" | base64 -w0
        - echo "$TOKEN" | od -An -c | head -1
        - sleep 3
  - name: in a template
    file: {content: "digest only", destination: /etc/marker}
  - name: fails the first time
    shell:
      env: {TOKEN: "${{ var.token }}"}
      inline: 'test -e /root/again || { touch /root/again; echo "failing with $TOKEN" >&2; exit 1; }'
    retries: 1
"""


class ProcessList(threading.Thread):
    """Reads every process's arguments until told to stop; remembers those with the secret."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: list[bytes] = []
        self.looks = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                if any(form in line.replace(b"\0", b" ") for form in FORMS):
                    self.found.append(line)


def occurrences(root: Path) -> list[str]:
    """The files below `root` that hold the secret in any form, looked into when compressed."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            found += [f"{path}: {form!r}" for form in FORMS if form in data]
    return found


def test_a_secret_is_used_and_found_nowhere(baked: Bake, tmp_path: Path) -> None:
    template = tmp_path / "secretive.yaml"
    template.write_text(TEMPLATE)
    baked.env["BAKE_VAR_token"] = SECRET
    watch = ProcessList()
    watch.start()
    result = baked("build", template, "--json", "--verbose")
    watch.ended.set()
    watch.join()
    result.ok()
    assert watch.looks > 50 and watch.found == []
    for form in FORMS:
        assert form.decode() not in result.out + result.err
    assert "the token is ***" in result.out
    del baked.env["BAKE_VAR_token"]
    for reading in (["show", "secretive", "--json"], ["logs", "secretive"], ["history", "secretive", "--json"]):
        out = baked(*reading).ok().out
        assert not any(form.decode() in out for form in FORMS)
    raw = tmp_path / "export" / "secretive.raw"
    raw.parent.mkdir()
    baked("export", "secretive", "--format", "raw", "--output", raw).ok()
    assert not raw_holds(raw)
    assert occurrences(baked.home) == []
    used = baked("run", "secretive", "--", "cat", "/etc/token-digest").ok().out.strip()
    assert used == hashlib.sha256(SECRET.encode()).hexdigest(), "it really was used"


def raw_holds(raw: Path) -> bool:
    """Whether any form stands anywhere on the disk, free blocks too; read in pieces that overlap."""
    longest = max(map(len, FORMS))
    tail = b""
    with raw.open("rb") as file:
        while chunk := file.read(8 << 20):
            data = tail + chunk
            if any(form in data for form in FORMS):
                return True
            tail = data[-longest:]
    return False
