"""The rules of docs/architecture.md that import-linter does not hold: where a dependency is used, how long a function is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_dependency_is_imported_only_where_it_belongs(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for dependency, homes in ONLY_THERE.items():
        allowed = (homes,) if isinstance(homes, str) else homes
        uses = {name for name in imports(path) if name == dependency or name.startswith(dependency + ".")}
        assert not uses or place.startswith(allowed), f"{place} imports {uses}; it belongs in {allowed}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_commands_start_in_one_place(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    starts = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id, node.attr) in {("subprocess", "run"), ("subprocess", "call"), ("subprocess", "check_output"), ("os", "system")}
    }
    assert not starts or place == "core/process.py" or place.startswith("cli/"), f"{place} starts commands by itself: {starts}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_and_modules_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


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
