"""The benchmark's arithmetic: what becomes of measurements on their way to docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import guest, packer, report, steps
from bench.bake import template
from bench.chart import Pair, chart, decades
from bench.guest import Anchors, Line
from bench.harness import BenchError, Measurement, Results
from bench.report import Spread, Table


def table(*found: tuple[str, str, int, float], **more: float) -> Table:
    return Table([Measurement(case, side, number, wall, more=more) for case, side, number, wall in found])  # type: ignore[arg-type]


def test_spread_has_the_median_and_both_ends() -> None:
    assert Spread((3.0, 1.0, 9.0)).text() == "3.0 (1.0–9.0)"
    assert Spread((0.614,)).text(2) == "0.61"
    assert report.spread([]) is None


def test_ratio_is_of_the_medians() -> None:
    assert report.ratio(Spread((1.0, 2.0, 9.0)), Spread((4.0,))) == 0.5
    assert report.ratio(None, Spread((4.0,))) is None


def test_a_sum_takes_the_rounds_that_have_both() -> None:
    found = table(("web", "packer", 1, 100.0), ("web", "packer", 2, 110.0), ("web/tests", "packer", 2, 40.0), ("web", "bake", 1, 7.0))
    assert found.wall(["web", "web/tests"], "packer") == Spread((150.0,))
    assert found.wall(["web"], "packer") == Spread((100.0, 110.0))
    assert found.wall(["four"], "packer") is None


@pytest.mark.parametrize(("bake", "verdict"), [(0.9, "yes"), (1.1, "no")])
def test_a_goal_is_reached_at_the_ratio_asked_for_or_below(bake: float, verdict: str) -> None:
    by_name = {goal.what: goal for goal in report.goals(table(("app", "packer", 1, 100.0), ("app/unchanged", "bake", 1, bake)))}
    assert by_name["nothing changed, without verification"].verdict == verdict
    assert by_name["bytes of ten images on one base"].verdict == "not measured"


def test_ten_images_are_reckoned_from_those_there_are() -> None:
    ours = Measurement("ten", "bake", 1, 1.0, more={"images bytes": 150.0})
    four = {"whole bytes a": 90.0, "whole bytes b": 110.0, "delta bytes a": 10.0, "delta bytes b": 20.0, "base bytes": 80.0}
    size = report.bytes_of_ten(Table([ours, Measurement("four", "packer", 1, 1.0, more=four)]))
    assert size == report.Bytes(bake=150.0, packer_whole=1000.0, packer_delta=230.0, counted=2)
    assert size.ratio == 0.15


def test_the_page_can_be_written_of_any_part_of_the_results(tmp_path: Path) -> None:
    results = Results(tmp_path / "results", "this")
    results.open(fresh=False)
    results.write("machine.json", {"cores": "2"})
    results.save(Measurement("app", "packer", 1, 120.0, others=24.0, more={"guest overhead": 12.0}))
    results.save(Measurement("app/last", "bake", 1, 12.0, more={"cached steps": 4.0, "stage seal": 2.0}))
    page, picture = report.write(results, tmp_path / "docs")
    assert "| last step changed | 12.0 | 120.0 | 1 / 1 | 0.100 | 0.15 |" in page.read_text()
    assert "median 5%, at most 10%" in page.read_text()
    assert "$" not in page.read_text().replace("$ ", "")
    assert "last step changed" in picture.read_text()


def test_results_of_something_else_are_not_mixed_in(tmp_path: Path) -> None:
    before = Results(tmp_path, "one bake")
    before.open(fresh=False)
    before.save(Measurement("web", "packer", 1, 120.0))
    now = Results(tmp_path, "another bake")
    with pytest.raises(BenchError, match="--fresh"):
        now.open(fresh=False)
    now.open(fresh=True)
    assert now.all() == []


def test_the_chart_is_an_svg_with_a_pair_of_bars_a_case() -> None:
    root = ElementTree.fromstring(chart([Pair("a < b", 0.6, 120.0), Pair("c", 12.0, 120.0)]))
    bars = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if float(rect.attrib["y"]) > 30]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(bars) == 4
    assert widths[0] < widths[2] < widths[1] == widths[3]
    assert decades([0.6, 120.0]) == (-1, 3)


def marked(*marks: tuple[float, str]) -> list[Line]:
    return [Line(at, f"    qemu: bench-mark {text}") for at, text in marks]


def test_the_time_is_split_by_the_guest_s_clock() -> None:
    # the guest's uptime 0 is at 110 of the host's clock; the end of update came 2 s late
    lines = marked((130.0, "update begin 20"), (130.5, "ssh active 15000000"), (142.0, "update end 30"), (145.0, "nginx begin 35.0"))
    lines += marked((155.0, "nginx end 45.0"))
    split = guest.split(Anchors(start=100.0, running=105.0, halting=158.0, end=170.0), lines, "[   55.000000] reboot: Power down\n")
    assert split is not None
    assert (split.boot, split.steps, split.shutdown) == (20.0, 20.0, 7.0)
    assert (split.starting, split.connecting, split.between, split.sealing, split.finishing) == (5.0, 5.0, 5.0, 3.0, 5.0)
    assert split.overhead + split.boot + split.steps + split.shutdown == 70.0


def test_a_restored_machine_does_not_boot() -> None:
    lines = marked((106.0, "update begin 500"), (106.0, "ssh active 15000000"), (107.0, "update end 501"))
    split = guest.split(Anchors(100.0, 102.0, 108.0, 110.0), lines, "[  503.000000] reboot: Power down")
    assert split is not None
    assert (split.boot, split.connecting) == (0.0, 4.0)


def test_a_guest_whose_clock_stood_still_is_not_taken_to_shut_down_early() -> None:
    lines = marked((110.0, "update begin 10.0"), (120.0, "update end 20.0"), (123.0, "nginx begin 21.0"), (133.0, "nginx end 31.0"))
    lines.append(Line(136.0, "kept after nginx: the machine was paused for 3.0 s"))
    split = guest.split(Anchors(100.0, 101.0, 140.0, 150.0), lines, "[   37.000000] reboot: Power down")
    assert split is not None
    assert (split.between, split.sealing, split.shutdown, split.finishing) == (3.0, 7.0, 2.0, 8.0)


def test_without_all_marks_nothing_is_guessed() -> None:
    anchors = Anchors(100.0, 102.0, 108.0, 110.0)
    assert guest.split(anchors, marked((106.0, "update begin 500")), "[  503.000000] reboot: Power down") is None
    assert guest.split(anchors, marked((106.0, "update begin 500"), (107.0, "update end 501")), "") is None


def test_both_tools_get_the_same_step_files(tmp_path: Path) -> None:
    job = steps.load("web")
    rendered = steps.render(steps.variant(job, "salt"), tmp_path, "http://10.0.2.2:1")
    text = template("web", rendered).read_text()
    for step, provisioner in zip(rendered.steps, packer.provisioners(rendered, clean_up=False), strict=True):
        assert (provisioner["source"] if step.destination else provisioner["script"]) == str(step.path)
        assert f'"{step.path.name}"' in text
        assert step.destination in text


def test_a_salt_changes_its_own_step_alone(tmp_path: Path) -> None:
    fresh = steps.variant(steps.load("app"), "salt")
    one, other = (
        [step.path.read_text() for step in steps.render(wanted, tmp_path / name, "").steps]
        for name, wanted in (("one", fresh), ("other", fresh.changed(-1, "pepper")))
    )
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]
