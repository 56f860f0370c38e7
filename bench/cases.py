"""The measurements: their preparation, commands and figures.

| case | bake | Packer |
|---|---|---|
| web | - | job web, from its source image, as always |
| web/cold | only the base image exists: the machine boots | as web |
| web/base | the layer of the booted base exists, but of no step | as web |
| web/verified | web/base with verification | web + web/tests |
| app | - | job app; one step changed in each round, which makes no difference to it |
| app/base | as web/base | as app |
| app/unchanged | the same again | as app |
| app/last, app/middle | step 5 or step 3 changed | as app |
| app/last-verified, app/middle-verified | with verification | app + app/tests |
| app/fixed | step 4 failed, was corrected, and the build is run again | as app |
| four | four templates that differ in their last step, two at a time | four builders, two at a time |
| ten | bytes of ten images that differ in their last step | of the images of `four` |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import bake as templates
from bench import steps
from bench.bake import BASE, Bake
from bench.harness import BenchError, Measurement, Run, Side, allocated, measured
from bench.packer import Packer
from bench.steps import Rendered, Variant

JOBS = {name: steps.load(name) for name in ("web", "app")}
SKIP = ("--skip-verify",)
MIDDLE, BROKEN = 3, 4  # steps of job app
STEP_FAILED = 3  # bake's exit code
FOUR = ("a", "b", "c", "d")
TEN = tuple(str(number) for number in range(10))
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Cases:
    """The context of all measurements."""

    bake: Bake
    packer: Packer
    directory: Path
    proxy: str

    def rendered(self, wanted: Variant, name: str) -> Rendered:
        return steps.render(wanted, self.directory / name, self.proxy)

    def template(self, wanted: Variant, name: str) -> Path:
        """bake's template for a variant."""
        return templates.template(name, self.rendered(wanted, name))


@dataclass(frozen=True)
class Task:
    """A measurement to make."""

    case: str
    side: Side
    number: int
    how: Callable[[Cases, int], Measurement]

    @property
    def title(self) -> str:
        return f"{self.case} ({self.side}, round {self.number})"

    def measure(self, cases: Cases) -> Measurement:
        return replace(self.how(cases, self.number), case=self.case, side=self.side, number=self.number)


def plan(runs: int) -> list[Task]:
    """All measurements in order. Within a round the tools alternate."""
    one_round: list[tuple[str, Side, Callable[[Cases, int], Measurement]]] = [
        ("web", "packer", partial(packer_build, "web")),
        ("web/cold", "bake", web_cold),
        ("web/base", "bake", partial(web_base, SKIP)),
        ("web/tests", "packer", partial(packer_tests, "web")),
        ("web/verified", "bake", partial(web_base, ())),
        ("app", "packer", partial(packer_build, "app")),
        ("app/base", "bake", app_base),
        ("app/unchanged", "bake", app_unchanged),
        ("app/last", "bake", partial(app_changed, -1, SKIP)),
        ("app/tests", "packer", partial(packer_tests, "app")),
        ("app/last-verified", "bake", partial(app_changed, -1, ())),
        ("app/middle", "bake", partial(app_changed, MIDDLE, SKIP)),
        ("app/middle-verified", "bake", partial(app_changed, MIDDLE, ())),
        ("app/fixed", "bake", app_fixed),
        ("four", "packer", packer_four),
        ("four", "bake", bake_four),
    ]
    rounds = [Task(case, side, number, how) for number in range(1, runs + 1) for case, side, how in one_round]
    return [*rounds, Task("ten", "bake", 1, bake_ten)]


def prepare(cases: Cases) -> None:
    """Prepare the prerequisites of both tools: the base image, packages in the cache, and bake's layer of the booted base, if any."""
    if not any(image["name"] == BASE for image in cases.bake.images()):
        cases.bake.bake_base()
    cases.bake.export_base(cases.packer.base)
    rendered = cases.rendered(steps.variant(JOBS["web"], "prepare"), "prepare")
    fetch = f"apt-get update -q\napt-get install -q -y --download-only {' '.join(steps.packages(JOBS))}\n"
    rendered.steps[0].path.write_text(f"#!/bin/sh\n{steps.prelude(cases.proxy)}{fetch}")
    cases.bake.build(templates.template("prepare", replace(rendered, steps=rendered.steps[:1])), options=SKIP).ok()


# -- Packer --------------------------------------------------------------------------------------------------------------


def packer_build(job: str, cases: Cases, number: int) -> Measurement:
    """The whole job. In job app, the last step of round 2 differs from round 1, and the middle step of round 3."""
    fresh = steps.variant(JOBS[job], job)
    wanted = (fresh, fresh.changed(-1, f"{job} {number}"), fresh.changed(MIDDLE, f"{job} {number}"))[(number - 1) % 3]
    finished = cases.packer.build(cases.packer.template(job, {job: cases.rendered(wanted, f"packer-{job}")})).ok()
    return measured(job, "packer", number, finished, cases.packer.figures(job, finished))


def packer_tests(job: str, cases: Cases, number: int) -> Measurement:
    """Verify this round's image. After an interruption, build one first."""
    if not cases.packer.disk(job).exists():
        packer_build(job, cases, number)
    finished = cases.packer.verify(job, cases.rendered(steps.variant(JOBS[job], job), f"packer-{job}-tests")).ok()
    return measured(job, "packer", number, finished)


def packer_four(cases: Cases, number: int) -> Measurement:
    fresh = steps.variant(JOBS["web"], f"four {number}")
    builds = {name: cases.rendered(fresh.changed(-1, f"four {number} {name}"), f"packer-four-{name}") for name in FOUR}
    template = cases.packer.template("four", builds, clean_up=True)
    finished = cases.packer.build(template, f"-parallel-builds={SIDE_BY_SIDE}").ok()
    sizes = {f"{what} {name}": value for name in FOUR for what, value in cases.packer.sizes(name).items()}
    return measured("four", "packer", number, finished, {**sizes, "base bytes": float(allocated(cases.packer.base))})


# -- bake ----------------------------------------------------------------------------------------------------------------


def web_cold(cases: Cases, number: int) -> Measurement:
    template = cases.template(steps.variant(JOBS["web"], f"cold {number}"), f"web-cold-{number}")
    return built(cases, cases.bake.build(template, options=(*SKIP, *cases.bake.cold)))


def web_base(options: tuple[str, ...], cases: Cases, number: int) -> Measurement:
    kind = "base" if options else "verified"
    template = cases.template(steps.variant(JOBS["web"], f"{kind} {number}"), f"web-{kind}-{number}")
    return built(cases, cases.bake.build(template, options=options))


def app_variant(number: int) -> Variant:
    return steps.variant(JOBS["app"], f"app {number}")


def app_base(cases: Cases, number: int) -> Measurement:
    return built(cases, cases.bake.build(cases.template(app_variant(number), f"app-{number}"), options=SKIP))


def app_unchanged(cases: Cases, number: int) -> Measurement:
    known(cases, number)
    template = cases.template(app_variant(number), f"app-{number}")
    return built(cases, cases.bake.build(template, options=SKIP))


def app_changed(step: int, options: tuple[str, ...], cases: Cases, number: int) -> Measurement:
    """The template of this round with a changed step `step`, edited in place."""
    known(cases, number)
    salt = f"app {number} changed {' '.join(options) or 'verified'}"
    template = cases.template(app_variant(number).changed(step, salt), f"app-{number}")
    return built(cases, cases.bake.build(template, options=options))


def app_fixed(cases: Cases, number: int) -> Measurement:
    """The second of two builds: in the first one, step 4 failed."""
    known(cases, number)
    broken = replace(app_variant(number).changed(BROKEN, f"app {number} broken"), broken=BROKEN)
    failed = cases.bake.build(cases.template(broken, f"app-{number}"), options=SKIP)
    if failed.exit_code != STEP_FAILED:
        raise BenchError(f"a build whose step {BROKEN} fails ended with exit code {failed.exit_code}, not {STEP_FAILED}")
    fixed = replace(broken, broken=0)
    measurement = built(cases, cases.bake.build(cases.template(fixed, f"app-{number}"), options=SKIP))
    return replace(measurement, more={**measurement.more, "failed build": round(failed.wall, 3)})


def bake_four(cases: Cases, number: int) -> Measurement:
    fresh = steps.variant(JOBS["web"], f"four {number}")
    wanted = [cases.template(fresh.changed(-1, f"four {number} {name}"), f"four-{number}-{name}") for name in FOUR]
    return built(cases, cases.bake.build(*wanted, options=(*SKIP, "--parallel", str(SIDE_BY_SIDE))), figures=False)


def bake_ten(cases: Cases, number: int) -> Measurement:
    """Build ten images, and measure the bytes that they take on the disk."""
    fresh, bake = steps.variant(JOBS["web"], "ten"), cases.bake
    names = [f"ten-{name}" for name in TEN]
    wanted = [cases.template(fresh.changed(-1, f"ten {name}"), name) for name in names]
    data, everything = bake.data_bytes(), bake.all_bytes()
    measurement = built(cases, bake.build(*wanted, options=(*SKIP, "--parallel", str(SIDE_BY_SIDE))), figures=False)
    sizes = {
        "base bytes": bake.image_bytes([BASE]),
        "images bytes": bake.image_bytes(names),  # with the base
        "data bytes grown": bake.data_bytes() - data,
        "home bytes grown": bake.all_bytes() - everything,
    }
    return replace(measurement, more={name: float(value) for name, value in sizes.items()})


def known(cases: Cases, number: int) -> None:
    """This round's job was built before, so the catalog answers, unless there was an interruption."""
    cases.bake.build(cases.template(app_variant(number), f"app-{number}"), options=SKIP).ok()


def built(cases: Cases, finished: Run, *, figures: bool = True) -> Measurement:
    more = cases.bake.figures(finished.ok()) if figures else {}
    return measured("", "bake", 0, finished, more)
