"""The rules of docs/architecture.md that import-linter does not hold: where a dependency is used, how long a function is."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.startup import TEMPLATE, prepare

PACKAGE = Path(__file__).resolve().parents[2] / "baker"
MODULES = sorted(PACKAGE.rglob("*.py"))
ONLY_THERE = {
    "fcntl": "core/locks.py",
    "libvirt": "machines/libvirt",
    "libvirt_qemu": "machines/libvirt",
    "sqlalchemy": "catalog",
    "alembic": "catalog",
    "boto3": "aws",
    "botocore": "aws",
    "rich": ("render", "cli"),
    "urllib3": "sources",
    "aiohttp": "proxy",
    "yarl": "proxy",
    "jinja2": ("provision", "trust/audit"),
    "shtab": "cli",
    "cryptography": ("trust/attest", "proxy"),
    "rfc8785": "catalog",
    "cyclonedx": "trust/sbom",
    "packageurl": "trust/sbom",
}
LONGEST_FUNCTION = 60
LONGEST_MODULE = 500


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def misplaced(path: Path) -> Iterator[str]:
    place, names = str(path.relative_to(PACKAGE)), imports(path)
    for dependency, homes in ONLY_THERE.items():
        allowed = (homes,) if isinstance(homes, str) else homes
        uses = {name for name in names if name == dependency or name.startswith(dependency + ".")}
        if uses and not place.startswith(allowed):
            yield f"{place} imports {uses}; it belongs in {allowed}"


def starts(path: Path) -> set[str]:
    return {
        node.attr
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id, node.attr) in {("subprocess", "run"), ("subprocess", "call"), ("subprocess", "check_output"), ("os", "system")}
    }


def too_long(path: Path) -> Iterator[str]:
    place, count = str(path.relative_to(PACKAGE)), len(path.read_text().splitlines())
    if count > LONGEST_MODULE:
        yield f"{place} has {count} lines"
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{place}: {node.name} has {lines} lines"


def test_a_dependency_is_imported_only_where_it_belongs() -> None:
    assert [fault for path in MODULES for fault in misplaced(path)] == []


def test_commands_start_in_one_place() -> None:
    found = {str(path.relative_to(PACKAGE)): starts(path) for path in MODULES}
    assert {place: how for place, how in found.items() if how and place != "core/process.py" and not place.startswith("cli/")} == {}


def test_functions_and_modules_are_short() -> None:
    assert [fault for path in MODULES for fault in too_long(path)] == []


def test_the_recipe_is_one_page() -> None:
    assert len((PACKAGE / "build/recipe.py").read_text().splitlines()) <= 66


HEAVY = (
    "libvirt",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "rich",
    "jinja2",
    "urllib3",
    "aiohttp",
    "yaml",
    "argparse",
    "cryptography",
    "cyclonedx",
    "rfc8785",
)


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, baker.cli.main as m; m.main(['--help']); print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "build" in result.stdout
    assert result.stderr.strip() == "[]"


def test_an_unchanged_build_loads_nothing_that_only_builds_need(tmp_path: Path) -> None:
    prepare(tmp_path)
    unneeded = ("libvirtmod", "sqlalchemy", "alembic", "rich", "jinja2", "boto3", "aiohttp", "cryptography", "cyclonedx")
    code = f"import sys, baker.cli.main as m; print(m.main(['build', {str(TEMPLATE)!r}]), [n for n in {unneeded!r} if n in sys.modules])"
    env = {**os.environ, "BAKE_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "already there" in result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "0 []"
