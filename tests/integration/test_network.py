"""What a build machine reaches: nothing but the proxy, or everything, and then it is on record."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Bake
from tests.support.web import Site, serving

TEMPLATE = """schema: 1
name: reaching
version: 1.0.0
source: {{image: debian-13}}
builder: {{cpus: 1, memory: 512MiB, network: {network}{more}}}
provisioners:
  - name: reach
    shell: {{script: reach.sh}}
"""
REACH = """#!/bin/bash
ask() {{  # host port address: the first line and the body's
  exec 3<>"/dev/tcp/$1/$2" || return
  printf 'GET %s HTTP/1.1\\r\\nHost: there\\r\\nConnection: close\\r\\n\\r\\n' "$3" >&3
  tr -d '\\r' <&3 | sed -n '1p;$p'
}}
echo "direct: $(ask 10.0.2.2 {port} /page 2>&1 | tail -n 1)"
echo "by name: $(getent hosts example.org || echo unknown)"
echo "clock: $(( ($(date +%s) - SOURCE_DATE_EPOCH) / 3600 ))"
proxy=${{http_proxy#http://}}
echo "proxy: $(ask ${{proxy%:*}} ${{proxy#*:}} http://127.0.0.1:{port}/page 2>&1 | tail -n 1)"
"""


def reached(bake: Bake, tmp_path: Path, network: str) -> tuple[list[str], int]:
    """What the step said, and how often the server of this host was asked."""
    with serving(Site({"/page": b"the page"})) as site:
        (tmp_path / "reaching.yaml").write_text(TEMPLATE.format(network=network, more=", clock: epoch" if network == "closed" else ""))
        (tmp_path / "reach.sh").write_text(REACH.format(port=site.url.rpartition(":")[2]))
        bake("build", tmp_path / "reaching.yaml").ok()
        log = bake("logs", "reaching").ok().out
        return [line.partition("| ")[2] for line in log.splitlines() if "| " in line], len(site.requests)


def test_a_closed_network_has_the_proxy_and_nothing_else_and_a_clock_of_its_own(baked: Bake, tmp_path: Path) -> None:
    said, asked = reached(baked, tmp_path, "closed")
    assert "refused" in said[0]
    assert said[1] == "by name: unknown"
    assert said[2] == "clock: 0"
    assert "127.0.0.1 is refused: bake does not connect guests to the host's loopback" in said[3]
    assert asked == 0


def test_what_went_past_the_proxy_is_told_and_on_record(baked: Bake, tmp_path: Path) -> None:
    said, asked = reached(baked, tmp_path, "report")
    assert (said[0], asked) == ("direct: the page", 1)
    assert "not recorded: 10.0.2.2:" in baked("logs", "reaching").ok().out
    evidence = baked("show", "reaching", "--json").ok().json["build"]["evidence"]
    assert "egress" in evidence
