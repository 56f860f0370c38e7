"""What a build leaves for its record: what is collected, how it becomes evidence, and what a layer hands on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.artifacts import codecs, egress
from baker.build import layer_history
from baker.build.artifacts import ArtifactCollector, BuildArtifacts, Evidence
from baker.build.change_tracking import ChangedInodes
from baker.build.values import Inspection
from baker.catalog.records import BuildRecord
from baker.core.digests import file_digest
from baker.core.errors import StepError, VerifyError
from baker.core.model import AnsibleContent, EgressEndpoint, Fetched, Package, PackageList, TestOutcome, TestReport
from baker.proxy import recording
from baker.proxy.recording import Recording
from baker.store.directory import DirectoryStore
from tests.support.workshop import Workshop, open_workshop

ROLE = AnsibleContent("role", "nginx", "1.2.0", "sha256:" + "1" * 64)
OTHER = AnsibleContent("collection", "community.general", "9.0.0", "sha256:" + "2" * 64)
FAR = EgressEndpoint("tcp", "192.0.2.7", 443, "example.org")
NEAR = EgressEndpoint("udp", "192.0.2.9", 123)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as made:
        yield made


def a_recording(directory: Path, *urls: str) -> Path:
    """A recording of the proxy in which every URL was answered with its own text."""
    made = Recording(directory)
    for url in urls:
        body = directory.parent / "body"
        body.write_text(url)
        made.add(Fetched("GET", url, 200, digest=f"sha256:{file_digest(body)}", size=len(url)), body)
        body.unlink()
    made.close()
    return directory


def named(items: Iterator[Evidence]) -> dict[str, bytes | Path]:
    return {each.name: each.content for each in items}


def text(content: bytes | Path) -> str:
    return gzip.decompress(content if isinstance(content, bytes) else content.read_bytes()).decode()


def on_record(shop: Workshop, build: BuildRecord, name: str) -> str:
    with DirectoryStore(shop.home.blobs).open(build.evidence[name]) as blob:
        return codecs.read_text(blob)


def test_a_snapshot_does_not_change_when_more_is_collected(tmp_path: Path) -> None:
    (tmp_path / "build.log").write_text("hello\n")
    collector = ArtifactCollector(tmp_path, tmp_path / "build.log")
    before = collector.snapshot()
    collector.set_junit("<testsuites/>")
    collector.add_ansible_content([ROLE])
    collector.add_ansible_content([OTHER, ROLE])
    collector.add_egress([FAR])
    collector.add_egress([FAR, NEAR])
    assert before == BuildArtifacts(tmp_path / "build.log")
    after = collector.snapshot()
    assert (after.junit, after.ansible_content, after.egress) == ("<testsuites/>", (OTHER, ROLE), (FAR, NEAR))


def test_everything_that_was_collected_is_evidence_and_masked(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the word is hush\n")
    (tmp_path / "console").write_text("login: hush\n")
    recorded = a_recording(tmp_path / "fetched", "http://a.example/x", "http://a.example/?token=hush")
    inspection = Inspection(
        "sha256:0", tmp_path / "manifest", 1, PackageList(), PackageList((Package("nginx", "1"),)), tmp_path / "changes"
    )
    found = BuildArtifacts(tmp_path / "log", {"build": tmp_path / "console"}, "<a hush/>", (ROLE,), (FAR,), (recorded,), inspection)

    def mask(value: str) -> str:
        return value.replace("hush", "***")

    items = named(found.evidence(mask))
    bodies = [name for name in items if name.startswith("body:")]
    assert set(items) - set(bodies) == {
        "log", "build_console", "junit", "fetches", "brought", "egress", "packages_before", "packages_after", "manifest", "changes",
    }  # fmt: skip
    assert (text(items["log"]), text(items["build_console"]), text(items["junit"])) == ("the word is ***\n", "login: ***\n", "<a ***/>")
    lines = [json.loads(line) for line in text(items["fetches"]).splitlines()]
    assert [(line["url"], bool(line["digest"])) for line in lines] == [("http://a.example/x", True), ("http://a.example/?token=***", False)]
    assert len(bodies) == 1 and items[bodies[0]].read_text() == "http://a.example/x"  # type: ignore[union-attr]
    assert set(named(found.logs(mask))) == {"log", "build_console", "junit"}


def test_what_was_not_made_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    assert set(named(BuildArtifacts(tmp_path / "log", downloads=(tmp_path / "none",)).evidence(str))) == {"log"}


def test_a_layer_hands_on_what_its_steps_left(tmp_path: Path) -> None:
    layer, scratch = tmp_path / "layer", tmp_path / "scratch"
    layer.mkdir()
    scratch.mkdir()
    first = ArtifactCollector(tmp_path, tmp_path / "log")
    first.add_downloads(a_recording(tmp_path / "fetched", "http://a.example/1"))
    first.add_ansible_content([ROLE])
    first.add_egress([FAR])
    layer_history.save(layer, first.snapshot(), ChangedInodes({(0, 12): 1}))

    second = ArtifactCollector(scratch, scratch / "log")
    second.add_downloads(a_recording(scratch / "own", "http://a.example/2"))
    changed = layer_history.load(layer, scratch, second)
    second.add_ansible_content([OTHER])
    found = second.snapshot()
    assert (found.ansible_content, found.egress, changed) == ((OTHER, ROLE), (FAR,), ChangedInodes({(0, 12): 1}))
    urls = [each.url for directory in found.downloads for each in recording.read(directory)]
    assert urls == ["http://a.example/1", "http://a.example/2"], "in the order in which they were fetched"
    assert found.downloads_complete


def test_a_layer_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """The names and formats of the files in a layer's directory stay as they are: layers outlive a version of bake."""
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "brought.jsonl").write_text(json.dumps(vars(ROLE)) + "\n")
    (layer / "egress.json").write_text(json.dumps({"reached": [vars(FAR)]}))
    (layer / "touched.json").write_text(json.dumps({"format": 1, "last": [[0, 12, 1]], "gone": []}))
    a_recording(layer / "fetched", "http://a.example/1")
    recording.mark_incomplete(layer / "fetched")
    collector = ArtifactCollector(tmp_path, tmp_path / "log")
    changed = layer_history.load(layer, tmp_path, collector)
    found = collector.snapshot()
    assert (found.ansible_content, found.egress, changed) == ((ROLE,), (FAR,), ChangedInodes({(0, 12): 1}))
    assert not found.downloads_complete


def test_egress_endpoints_are_written_as_they_are_read(tmp_path: Path) -> None:
    egress.write(tmp_path / "egress", (FAR, NEAR))
    assert egress.read(tmp_path / "egress") == (FAR, NEAR)
    assert egress.summary((FAR, NEAR)) == "example.org:443/tcp, 192.0.2.9:123/udp"


def test_a_failed_build_has_its_log_and_its_console_on_record(shop: Workshop) -> None:
    shop.guests.fails = {"step-2"}
    with pytest.raises(StepError):
        shop.bake()
    (build,) = shop.catalog.builds("web")
    assert set(build.evidence) == {"log", "build_console"}
    assert on_record(shop, build, "build_console") == "build login:\n"
    assert "it fails" in on_record(shop, build, "log")


def test_a_failed_verification_has_its_report_on_record(shop: Workshop) -> None:
    (shop.directory / "test_web.py").write_text("def test_a(host): ...\n")
    junit = '<testsuites><testsuite failures="1"/></testsuites>'
    shop.test = lambda *arguments, **options: TestReport((TestOutcome("test_a", "failed", 0.1, "no nginx"),), 0.1, junit)
    with pytest.raises(VerifyError):
        shop.bake("step-1", more="verify:\n  - testinfra: test_web.py\n")
    (build,) = shop.catalog.builds("web")
    assert set(build.evidence) == {"log", "build_console", "verify_console", "junit"}
    assert on_record(shop, build, "junit") == junit


def test_an_image_has_its_evidence_on_record(shop: Workshop) -> None:
    image = shop.bake("step-1").image
    assert image is not None
    assert set(shop.catalog.build_of(image).evidence) == {"log", "build_console", "packages_before", "packages_after", "inputs"}
