"""What the documents say is true as far as a program can tell: figures, links, commands, flags, width."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.cli.main import VERBS, split
from baker.cli.options import parser_for
from baker.cli.runner import parse
from docs.figures import draw, lineage, terminal

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs/figures"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDTH = 100


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page outside of code blocks and comments."""
    text = re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), path.read_text(), flags=re.DOTALL)
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(path: Path) -> set[str]:
    """What a link may have behind `#` for the headings of a page."""
    headings = [line.lstrip("#").strip().lower() for _, line in prose(path) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def way() -> list[draw.Row]:
    """The calls of the recipe, as the picture shows them."""
    return draw.way()


# --- figures -----------------------------------------------------------------------------------------------------------------


def test_the_diagrams_are_what_the_code_says(way: list[draw.Row]) -> None:
    assert (FIGURES / "floors.svg").read_text() == draw.draw_floors(draw.floors()), "python -m docs.figures.draw"
    assert (FIGURES / "way.svg").read_text() == draw.draw_way(way), "python -m docs.figures.draw"


def test_the_way_shows_every_stage_that_a_build_reports(way: list[draw.Row]) -> None:
    aside = {"again"}  # the second run of `bake test --idempotent`, which is no part of the recipe
    reported = {
        call.args[0].value
        for path in (ROOT / "baker/build").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "stage"
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert {stage for row in way for stage in row.stages} == reported - aside


def test_the_way_keeps_the_order_of_the_recipe(way: list[draw.Row]) -> None:
    calls = [row.call for row in way]
    order = [
        "load",
        "stages.resolve",
        "stages.plan",
        "stages.reuse",
        "provision_and_capture",
        "stages.normalize",
        "stages.verify_and_inspect",
    ]
    assert [call for call in calls if call in order] == order
    made = next(row for row in way if row.call == "provision_and_capture")
    assert [stage for stage in made.stages if stage in ("boot", "provision", "seal", "capture")] == ["boot", "provision", "seal", "capture"]


def test_the_floors_show_imports_that_go_upward() -> None:
    found = draw.Floors((("top",), ("bottom",)), frozenset({("top", "bottom")}), frozenset({("bottom", "top")}))
    picture = draw.draw_floors(found)
    assert 'class="mark"><title>top imports bottom' in picture
    assert 'class="bad"><title>bottom imports top' in picture


def test_pictures_of_terminals_are_what_was_recorded() -> None:
    for path in FIGURES.glob("*.ansi"):
        assert path.with_suffix(".svg").read_text() == terminal.draw(path.read_bytes().decode()), "python -m docs.figures.terminal"


def test_the_picture_of_a_lineage_is_what_was_recorded() -> None:
    if (FIGURES / "lineage.json").exists():
        line = json.loads((FIGURES / "lineage.json").read_text())
        assert (FIGURES / "lineage.svg").read_text() == lineage.draw(line), "python -m docs.figures.lineage"


def test_a_command_is_recorded_on_a_terminal_with_its_exit_code() -> None:
    code = "import os, sys; print('\\x1b[32mhigh\\x1b[0m' if sys.stdout.isatty() else 'no', os.get_terminal_size().columns); sys.exit(3)"
    written, status = terminal.record([sys.executable, "-c", code])
    assert status == 3
    assert written.startswith(f"$ {Path(sys.executable).name} -c ")
    assert written.endswith(f"\x1b[32mhigh\x1b[0m {terminal.COLUMNS}\r\n")


def test_a_picture_shows_the_screen_at_the_end() -> None:
    written = "$ bake x\r\none\r\nworking\r\x1b[2K\x1b[1A\x1b[2K\x1b[1;31mtwo\x1b[0m & <three>\x1b[K\r\n\x1b[?25h"
    picture = terminal.draw(written)
    assert '<tspan class="bold c1">two</tspan> &amp; &lt;three&gt;' in picture
    assert "one" not in picture.partition("</defs>")[2]
    assert "working" not in picture


def test_a_lineage_has_only_what_its_picture_needs() -> None:
    image = {"name": "web", "version": "1.0.0", "id": "a1", "digest": "sha256:12", "created": "2026-11-22T20:00:00Z", "verified": True}
    step = {"index": 1, "name": "packages", "kind": "shell", "seconds": 61.2, "output": "secret"}
    build = {
        "source": {"title": "debian"},
        "host": "h",
        "started": "2026-11-22T20:00:00Z",
        "finished": "2026-11-22T20:02:12Z",
        "steps": [step],
    }
    found = lineage.reduce([{"image": {**image, "labels": {}}, "build": build}, {"image": {**image, "verified": False}, "build": None}])
    assert set(found[0]) == {*image, "source", "seconds", "steps"}
    assert found[0]["steps"] == [{"index": 1, "name": "packages", "kind": "shell", "seconds": 61.2}]
    picture = lineage.draw(found)
    for text in ("web 1.0.0", "debian", "built in 2m 12s · verified", "1. packages (shell)  1m 01s", "2026-11-22 · not verified"):
        assert text in picture


# --- pages -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(line for _, line in prose(path))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(page), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_wrap(path: Path) -> None:
    long = [number for number, line in prose(path) if len(line) > WIDTH and not line.lstrip().startswith(("|", "#", "!["))]
    assert not long, f"{path.name}: lines {long} have more than {WIDTH} columns"


def commands(path: Path) -> list[str]:
    """The `bake` commands that a page shows in its code blocks, without the prompt and the comment."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    found = [re.match(r"(?:\s*- (?:run: )?|\$ )(?:\.venv/bin/)?(bake .*)", line) for block in blocks for line in block.splitlines()]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_the_pages_are_understood(path: Path) -> None:
    for line in commands(path):
        for command in re.sub(r"\s#.*", "", line).split(";"):
            words = shlex.split(command.partition(" > ")[0])[1:]
            flags, verb, rest = split(words)
            assert verb in VERBS, f"{path.name}: {command}"
            parse(verb, importlib.import_module(VERBS[verb][0]), [*flags, *rest])


def options(verb: str) -> set[str]:
    """Every option that a verb takes."""
    return {option for action in parser_for(verb, importlib.import_module(VERBS[verb][0]))._actions for option in action.option_strings}


def spans(text: str) -> list[str]:
    """What a page sets as code within its text."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_options_of_commands_in_the_text_exist(path: Path) -> None:
    for span in spans(path.read_text()):
        verb = span.split()[1] if span.startswith("bake ") else ""
        if verb in VERBS:
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span.partition(" -- ")[0])) <= options(verb), f"{path.name}: {span}"


@pytest.mark.parametrize("verb", VERBS)
def test_options_in_the_section_of_a_command_exist(verb: str) -> None:
    section = (ROOT / "docs/commands.md").read_text().partition(f"## bake {verb}\n")[2].partition("\n## ")[0]
    for span in spans(section):
        if span.startswith("-"):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) <= options(verb), f"bake {verb}: {span}"


def test_every_dependency_says_why_it_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    page = (ROOT / "docs/architecture.md").read_text().partition("## Dependencies")[2]
    assert [line for line in wanted if f"`{re.split('[>=<]', line)[0]}`" not in page] == []


def test_modules_and_folders_that_the_architecture_names_exist() -> None:
    named = {span for span in spans((ROOT / "docs/architecture.md").read_text()) if re.fullmatch(r"\w[\w/]*(/|\.py)|\w+/\w+", span)}
    modules = {path.name for path in (ROOT / "baker").rglob("*.py")}
    assert {name for name in named if name not in modules and not (ROOT / name).exists() and not (ROOT / "baker" / name).exists()} == set()


def test_the_architecture_lists_the_floors_of_the_contract() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    listed = [tuple(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| \d+ \| ([^|]*) \|", page, re.MULTILINE)]
    assert listed == list(draw.floors().rows)
