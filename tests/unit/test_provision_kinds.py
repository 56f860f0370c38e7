"""Each case in tests/cases/provision/ is a step's configuration and the operations (or the error) that must come of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from baker.core.errors import BakeError
from baker.provision import registry
from baker.provision.base import StepContext

CASES = sorted((Path(__file__).parent.parent / "cases/provision").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    _write_files(case.get("files", {}), tmp_path)
    kind = registry.get(case["kind"])
    try:
        config = kind.Config.model_validate(case["config"])
        context = StepContext(base_dir=tmp_path, step="step", variables={}, env=case.get("env", {}))
        operations = [_data(operation, tmp_path) for operation in kind.operations(config, context)]
    except (ValidationError, BakeError) as error:
        assert "error" in case, error
        assert case["error"] in str(error)
        assert case.get("code", "") == getattr(error, "code", "")
        return
    assert operations == case["operations"]
    assert sorted(str(found.relative_to(tmp_path)) for found in kind.inputs(config, tmp_path)) == sorted(case.get("inputs", []))


def _write_files(files: dict[str, Any], directory: Path) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
            continue
        text, mode = (content["text"], int(content["mode"], 8)) if isinstance(content, dict) else (content, 0o644)
        path.write_text(text)
        path.chmod(mode)


def _data(operation: Any, base: Path) -> dict[str, Any]:
    """An operation as plain data, without the fields that have their default."""
    found = {}
    for field in dataclasses.fields(operation):
        value = getattr(operation, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if value != default:
            found[field.name] = f"{value:04o}" if field.name.endswith("mode") else _plain(value, base)
    return {type(operation).__name__.lower(): found}


def _plain(value: Any, base: Path) -> Any:
    if isinstance(value, (bytes, Path)):
        value = value.decode() if isinstance(value, bytes) else str(value)
    if isinstance(value, str):
        words = value.replace(str(base), "BASE")
        return Path(words).name if words.endswith(("/ansible-playbook", "/ansible-galaxy")) else words
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item, base) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, base) for name, item in value.items() if not name.startswith(("ANSIBLE_", "BAKE_ANSIBLE", "PYTHONUN"))}
    return value
