"""What a machine fetched over HTTPS comes again when its server is gone, and its image knows nothing of who stood between the two."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

import pytest

from baker.catalog.catalog import Catalog
from baker.core.home import Home
from baker.disks.rootfs import open_root
from baker.proxy.certificate_authority import NAME, Authority
from baker.store.directory import DirectoryStore
from tests.support.cli import Bake
from tests.support.web import Site, serving

TEMPLATE = """schema: 1
name: recorded
version: 1.0.0
source: {image: debian-13}
builder: {cpus: 1, memory: 512MiB, network: closed}
provisioners:
  - name: fetch
    shell: |
      test -s /run/bake/ca-certificates.crt
      python3 -c 'import urllib.request as r; open("/opt/fetched", "wb").write(r.urlopen("SITE/data").read())'
reproducible: true
"""
DATA = bytes(range(256)) * 1000
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
PROXY = re.compile(rb"http://10\.0\.2\.2:\d|/run/bake/")


def test_what_came_over_https_comes_again_and_leaves_nothing_in_the_image(baked: Bake, tmp_path: Path) -> None:
    world, address = Authority(), own_address()
    assert traces(b"# of the host\n" + world.pem.encode()) == ["certificate"]  # this test would see it
    (tmp_path / "world.pem").write_text(world.pem)
    baked.env |= {"SSL_CERT_FILE": str(tmp_path / "world.pem"), "no_proxy": address, "NO_PROXY": address}
    with serving(Site({"/data": DATA}), world.context(address), address=address) as site:
        (tmp_path / "recorded.yaml").write_text(TEMPLATE.replace("SITE", site.url))
        baked("build", tmp_path / "recorded.yaml", "--skip-verify").ok()
        asked = len(site.requests)
    assert asked == 1
    image_is_clean(baked.home)
    verdict = baked("rebuild", "recorded", "--json").ok().json
    assert (verdict["level"] if isinstance(verdict, dict) else verdict[0]["level"]) == 3


def image_is_clean(home: Path) -> None:
    """What was fetched is in the image; no certificate of an authority of ours is, nor a word of the proxy."""
    place = Home.from_environment({"BAKE_HOME": str(home), "HOME": "/"})
    image = Catalog(place.catalog).resolve("recorded")
    found = {}
    with open_root(DirectoryStore(place.blobs).materialize(image.chain)) as root:
        assert root.read("/opt/fetched") == DATA
        for each in root.walk():
            if each.inode.is_file and (seen := traces(b"".join(each.tree.data(each.inode)))):
                found[each.path] = seen
    assert not found


def traces(data: bytes) -> list[str]:
    """What of the recorder these bytes hold."""
    return ["certificate"] * any(map(_is_ours, [data, *PEM.findall(data)])) + ["proxy"] * bool(PROXY.search(data))


def _is_ours(data: bytes) -> bool:
    """Whether these bytes are a certificate of an authority of ours, or hold its name."""
    try:
        data = ssl.PEM_cert_to_DER_cert(data.decode("ascii"))
    except ValueError:
        pass  # some other file, or an example in one
    return NAME.encode() in data


def own_address() -> str:
    """An address of this host that is not loopback: guests are connected to no other ones of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this host has no network")
        return str(probe.getsockname()[0])
