"""The JSON Schema says the same as the loader; the reference says what the models say; both stay cheap to load."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from template_cases import CASES

from baker.template.reference import markdown
from baker.template.schema import json_schema
from baker.template.yaml_document import Problems, parse, read

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "templates").glob("*.yaml"))
BUNDLES = sorted([*(CASES / "valid").rglob("provisioner.yaml"), *(ROOT / "provisioners").glob("*/provisioner.yaml")])
# mistakes that no schema can see: in the YAML itself, in names that must be declared, in files that must exist, in other files
VISIBLE = [
    "wrong-types",
    "unknown-keys",
    "missing-keys",
    "wrong-schema",
    "schema-as-text",
    "version-read-as-number",
    "version-not-semantic",
    "yes-where-text-is-wanted",
    "name-with-upper-case",
    "source-two",
    "source-none",
    "source-unknown",
    "source-url",
    "source-url-without-checksum",
    "sizes-and-times",
    "enumerations",
    "step-kinds",
    "variables-not-a-mapping",
    "not-a-mapping",
]


def tree(path: Path) -> Any:
    problems = Problems()
    document = read(path, path.name, problems)
    assert document is not None
    root = parse(document, problems)
    assert root is not None
    return root.data()


@cache
def validator(file: Any) -> jsonschema.Draft202012Validator:
    schema = json_schema(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", [*sorted((CASES / "valid").glob("*.yaml")), *SHIPPED], ids=lambda path: path.stem)
def test_valid_templates_fit_the_schema(path: Path) -> None:
    assert [error.message for error in validator("template").iter_errors(tree(path))] == []


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.parent.name)
def test_bundles_fit_the_schema(path: Path) -> None:
    assert [error.message for error in validator("bundle").iter_errors(tree(path))] == []


def test_included_files_fit_the_schema() -> None:
    assert validator("include").is_valid(tree(CASES / "valid/parts/common.yaml"))
    assert validator("include").is_valid([{"shell": "true"}])
    assert not validator("include").is_valid([{"shel": "true"}])


@pytest.mark.parametrize("name", VISIBLE)
def test_mistakes_do_not_fit_the_schema(name: str) -> None:
    assert not validator("template").is_valid(tree(CASES / f"invalid/{name}.yaml"))


def test_expressions_fit_where_other_types_are_wanted() -> None:
    base = {"schema": 1, "name": "web", "version": "1.0.0", "source": {"debootstrap": "trixie"}}
    check = validator("template")
    assert check.is_valid({**base, "builder": {"cpus": "${{ var.cpus }}", "memory": "${{ var.memory }}"}})
    assert check.is_valid({**base, "reproducible": "${{ var.x }}", "name": "web-${{ matrix.a }}"})
    assert not check.is_valid({**base, "builder": {"cpus": "many"}})
    assert not check.is_valid({**base, "reproducible": "var.x"})


def test_the_schema_has_every_kind_and_describes_every_key() -> None:
    schema = json_schema()
    shapes = [shape["required"][0] for shape in schema["$defs"]["Step"]["anyOf"]]
    assert {"shell", "file", "ansible", "uses", "include"} <= set(shapes)
    bare = [key for key, value in schema["properties"].items() if not value.get("description")]
    assert bare == []


def test_the_reference_is_what_the_models_say() -> None:
    assert (ROOT / "docs/template-reference.md").read_text() == markdown(), (
        "python -m baker.template.reference > docs/template-reference.md"
    )


def test_loading_leaves_heavy_things_alone() -> None:
    code = (
        "import sys; from pathlib import Path; from baker.template.load import load\n"
        "load(Path(sys.argv[1]), env={})\n"
        "heavy = {'jinja2', 'sqlalchemy', 'libvirt', 'rich', 'ansible', 'semantic_version', 'pydantic.v1', 'difflib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    path = CASES / "valid/matrix.yaml"
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
