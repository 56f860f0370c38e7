"""Writes docs/benchmarks.md and docs/benchmarks.svg from the results.

What is compared with what and what was asked for stand here, the words around the tables in page.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bench.chart import Pair, chart
from bench.harness import Measurement, Results, Side

PAGE = Path(__file__).with_name("page.md")
MIB = 1 << 20
TEN = 10
PARTS = ("boot", "steps", "shutdown", "starting", "connecting", "between", "sealing", "finishing", "overhead")


@dataclass(frozen=True)
class Case:
    """One comparison. `packer` are the cases whose sum Packer's side is."""

    title: str
    bake: str
    packer: tuple[str, ...]
    asked: float | None = None  # the goal for the ratio bake / Packer
    note: str = ""


CASES = (
    Case("cold", "web/cold", ("web",), 0.7, "only the base image is there, the machine boots"),
    Case("cold, base known", "web/base", ("web",), 0.7, "the base's machine was kept, as it is after any build on it"),
    Case("cold, base known, verified", "web/verified", ("web", "web/tests")),
    Case("five steps, cold, base known", "app/base", ("app",), 0.7),
    Case("nothing changed", "app/unchanged", ("app",), 0.01),
    Case("last step changed", "app/last", ("app",), 0.15),
    Case("last step changed, verified", "app/last-verified", ("app", "app/tests")),
    Case("a middle step changed", "app/middle", ("app",), None, "step 3 of 5"),
    Case("a middle step changed, verified", "app/middle-verified", ("app", "app/tests")),
    Case("failed step fixed", "app/fixed", ("app",), 0.25, "step 4 of 5; the second build"),
    Case("four templates on one base", "four", ("four",)),
)
ASKED_BYTES, ASKED_OVERHEAD = 0.25, 0.05
SPLITS: tuple[tuple[str, str, Side], ...] = (
    ("bake, cold", "web/cold", "bake"),
    ("bake, cold, base known", "web/base", "bake"),
    ("Packer", "web", "packer"),
    ("bake, five steps, base known", "app/base", "bake"),
    ("Packer, five steps", "app", "packer"),
)


# -- statistics ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Several values of one measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int = 1) -> str:
        """The median, with the range if there are several values."""
        if len(self.values) == 1:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({min(self.values):.{digits}f}–{max(self.values):.{digits}f})"


def spread(values: Iterable[float]) -> Spread | None:
    """None if there are no values."""
    found = tuple(values)
    return Spread(found) if found else None


def ratio(bake: Spread | None, packer: Spread | None) -> float | None:
    """The ratio of the medians."""
    return bake.median / packer.median if bake and packer and packer.median else None


@dataclass(frozen=True)
class Table:
    """The measurements by case."""

    measurements: Sequence[Measurement]

    def of(self, case: str, side: Side) -> list[Measurement]:
        return sorted((m for m in self.measurements if (m.case, m.side) == (case, side)), key=lambda m: m.number)

    def wall(self, cases: Sequence[str], side: Side) -> Spread | None:
        """Wall times; for several cases their sum in each round that has all of them."""
        by_round = [{m.number: m.wall for m in self.of(case, side)} for case in cases]
        common = set.intersection(*(set(found) for found in by_round)) if by_round else set()
        return spread(sum(found[number] for found in by_round) for number in sorted(common))

    def figure(self, case: str, side: Side, name: str) -> Spread | None:
        return spread(m.more[name] for m in self.of(case, side) if name in m.more)

    def share(self, case: str, side: Side, name: str) -> Spread | None:
        """A figure as a fraction of the wall time of its run."""
        return spread(m.more[name] / m.wall for m in self.of(case, side) if name in m.more)


@dataclass(frozen=True)
class Bytes:
    """Ten images on one base."""

    bake: float
    packer_whole: float
    packer_delta: float
    counted: int  # Packer images that were measured; if fewer than ten, the total is computed from their mean

    @property
    def ratio(self) -> float:
        return self.bake / self.packer_whole


def bytes_of_ten(table: Table) -> Bytes | None:
    """bake's ten images with their base compared with ten Packer images: complete ones, and overlays on the base."""
    ours = table.figure("ten", "bake", "images bytes")
    rounds = table.of("four", "packer")
    whole = [value for m in rounds for name, value in m.more.items() if name.startswith("whole bytes ")][:TEN]
    delta = [value for m in rounds for name, value in m.more.items() if name.startswith("delta bytes ")][:TEN]
    if not ours or not whole:
        return None
    base = rounds[0].more["base bytes"]
    return Bytes(ours.median, statistics.mean(whole) * TEN, base + statistics.mean(delta) * TEN, len(whole))


@dataclass(frozen=True)
class Goal:
    """A goal. `reached` is None if it was not measured."""

    what: str
    asked: float
    reached: float | None

    @property
    def verdict(self) -> str:
        return "not measured" if self.reached is None else "yes" if self.reached <= self.asked else "no"


def goals(table: Table) -> list[Goal]:
    found = [
        Goal(f"{case.title}, without verification", case.asked, ratio(table.wall([case.bake], "bake"), table.wall(case.packer, "packer")))
        for case in CASES
        if case.asked is not None
    ]
    size, overhead = bytes_of_ten(table), table.share("web/cold", "bake", "guest overhead")
    found.append(Goal("bytes of ten images on one base", ASKED_BYTES, size.ratio if size else None))
    found.append(Goal("bake's own overhead, as a part of a cold build", ASKED_OVERHEAD, overhead.median if overhead else None))
    return found


# -- the page ------------------------------------------------------------------------------------------------------------


def write(results: Results, docs: Path) -> list[Path]:
    """Write both files; returns their paths."""
    docs.mkdir(parents=True, exist_ok=True)
    table = Table(results.all())
    page, picture = docs / "benchmarks.md", docs / "benchmarks.svg"
    page.write_text(markdown(table, results.document("machine.json")))
    picture.write_text(chart(pairs(table)))
    return [page, picture]


def pairs(table: Table) -> list[Pair]:
    found = [(case.title, table.wall([case.bake], "bake"), table.wall(case.packer, "packer")) for case in CASES]
    return [Pair(title, bake.median, packer.median) for title, bake, packer in found if bake and packer]


def markdown(table: Table, machine: Mapping[str, str]) -> str:
    size = bytes_of_ten(table)
    return Template(PAGE.read_text()).substitute(
        goals=_goals(table),
        times=_times(table),
        account=_account(table),
        others=_others(table, int(machine.get("cores", "1"))),
        splits=_splits(table),
        stages=_stages(table),
        weighed=f"\n{TEN} of Packer's are estimated from the mean of {size.counted}." if size and size.counted < TEN else "",
        bytes=_bytes(table, size) if size else "Not measured.",
        machine=_rows(("", ""), list(machine.items())),
    )


def _goals(table: Table) -> str:
    rows = [(goal.what, f"{goal.asked:g}", _number(goal.reached), goal.verdict) for goal in goals(table)]
    return _rows(("bake / Packer", "asked: at most", "measured", "reached"), rows)


def _times(table: Table) -> str:
    rows = []
    for case in CASES:
        bake, packer = table.wall([case.bake], "bake"), table.wall(case.packer, "packer")
        title = f"{case.title} ({case.note})" if case.note else case.title
        asked = f"{case.asked:g}" if case.asked is not None else ""
        digits = 2 if bake and bake.median < 2 else 1
        count = f"{len(bake.values) if bake else 0} / {len(packer.values) if packer else 0}"
        rows.append((title, _text(bake, digits), _text(packer), count, _number(ratio(bake, packer)), asked))
    return _rows(("case", "bake, s", "Packer, s", "runs", "ratio", "asked"), rows)


def _account(table: Table) -> str:
    found = [(f"bake: {case.title}", table.of(case.bake, "bake")) for case in CASES]
    names = {"web": "web", "web/tests": "its verification", "app": "five steps", "app/tests": "its verification", "four": "four templates"}
    found += [(f"Packer: {title}", table.of(case, "packer")) for case, title in names.items()]
    rows = [(title, _text(spread(m.cpu for m in runs)), _text(spread(m.peak / MIB for m in runs), 0)) for title, runs in found if runs]
    return _rows(("", "user + system, s", "largest process, MiB"), rows)


def _others(table: Table, cores: int) -> str:
    """A sentence about the load of the host by others."""
    shares = spread(m.others / m.wall / cores for m in table.measurements if m.wall)
    return f"median {shares.median:.0%}, at most {max(shares.values):.0%}" if shares else "unknown"


def _splits(table: Table) -> str:
    rows = []
    for title, case, side in SPLITS:
        found = [table.figure(case, side, f"guest {part}") for part in PARTS]
        if any(found):
            share = table.share(case, side, "guest overhead")
            rows.append((title, *(_text(value and Spread((value.median,))) for value in found), f"{share.median:.1%}" if share else ""))
    return _rows(("", *PARTS, "overhead / wall"), rows)


def _stages(table: Table) -> str:
    runs = [(case.title, table.of(case.bake, "bake")) for case in CASES]
    names: dict[str, None] = {}
    for _, found in runs:
        names.update(dict.fromkeys(name for m in found for name in m.more if name.startswith("stage ")))
    if not names:
        return ""
    rows = []
    for (title, found), case in zip(runs, CASES, strict=True):
        if any(name in m.more for m in found for name in names):
            cached = table.figure(case.bake, "bake", "cached steps")
            values = [table.figure(case.bake, "bake", name) for name in names]
            rows.append((title, f"{cached.median:.0f}" if cached else "", *(_text(value and Spread((value.median,))) for value in values)))
    return _rows(("", "steps not run again", *(name.removeprefix("stage ") for name in names)), rows)


def _bytes(table: Table, size: Bytes) -> str:
    rows = [
        ("bake: ten images and their base", _mib(size.bake), ""),
        ("Packer: ten images, as it makes them by default", _mib(size.packer_whole), f"{size.ratio:.3f}"),
        ("Packer: ten overlays and their base (`use_backing_file`)", _mib(size.packer_delta), f"{size.bake / size.packer_delta:.3f}"),
    ]
    more = {name: table.figure("ten", "bake", name) for name in ("data bytes grown", "home bytes grown")}
    rows += [
        (f"bake: {text}", _mib(value.median), "")
        for text, value in (
            ("all that the ten builds left below data/ (logs, manifests, catalog with the disks)", more["data bytes grown"]),
            ("all that they left in BAKE_HOME (kept machines, too: a cache)", more["home bytes grown"]),
        )
        if value
    ]
    return _rows(("on the disk", "MiB", "bake / this"), rows)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _text(value: Spread | None, digits: int = 1) -> str:
    return value.text(digits) if value else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mib(value: float) -> str:
    return f"{value / MIB:.0f}"
