"""Variables: who wins, what text becomes, and what stays unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baker.core.errors import TemplateError
from baker.template.load import load
from baker.template.variables import convert

HEAD = "schema: 1\nname: web\nversion: 1.4.0\nsource: {debootstrap: trixie}\n"


def template_with(directory: Path, declaration: str) -> Path:
    path = directory / "web.yaml"
    path.write_text(HEAD + f"variables:\n  x: {declaration}\n")
    return path


def value_of(path: Path, **options: Any) -> tuple[Any, str]:
    (template,) = load(path, **{"env": {}, **options})
    return template.variables["x"].value, template.variables["x"].origin


def test_priority(tmp_path: Path) -> None:
    path = template_with(tmp_path, "{default: from the default}")
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("x: from a\n")
    second.write_text("x: from b\n")
    env = {"BAKE_VAR_x": "from env"}
    assert value_of(path) == ("from the default", "default")
    assert value_of(path, env=env) == ("from env", "BAKE_VAR_x")
    assert value_of(path, env=env, var_files=[first]) == ("from a", str(first))
    assert value_of(path, env=env, var_files=[first, second]) == ("from b", str(second))
    assert value_of(path, env=env, var_files=[first, second], variables={"x": "from --var"}) == ("from --var", "--var")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "1.10", "1.10"),
        ("string", "yes", "yes"),
        ("string", "", ""),
        ("integer", "42", 42),
        ("integer", " -1 ", -1),
        ("number", "1.5", 1.5),
        ("number", "3", 3),
        ("boolean", "yes", True),
        ("boolean", "0", False),
        ("boolean", "False", False),
        ("list", "[a, 1, true]", ["a", 1, True]),
        ("map", "{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_text_becomes_the_declared_type(kind: str, text: str, value: Any) -> None:
    converted = convert(text, kind)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", "1.5"),
        ("integer", "true"),
        ("number", "many"),
        ("boolean", "2"),
        ("list", "a, b"),
        ("list", "["),
        ("map", "[a]"),
        ("map", "&a {x: *a}"),
    ],
)
def test_other_text_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must be|is not)"):
        convert(text, kind)


def test_a_variable_without_type_has_that_of_its_default(tmp_path: Path) -> None:
    assert value_of(template_with(tmp_path, "{default: 80}"), variables={"x": "81"}) == (81, "--var")
    assert value_of(template_with(tmp_path, "{default: [a]}"), variables={"x": "[b]"}) == (["b"], "--var")


def test_null_is_a_default(tmp_path: Path) -> None:
    assert value_of(template_with(tmp_path, "{default: null}")) == (None, "default")


def test_defaults_may_use_the_environment(tmp_path: Path) -> None:
    path = template_with(tmp_path, '{default: "${{ env.WHO }}!"}')
    assert value_of(path, env={"WHO": "me"}) == ("me!", "default")
    with pytest.raises(TemplateError) as caught:
        load(path, env={})
    assert [(each.code, "WHO" in each.message) for each in caught.value.problems] == [("template.environment-not-set", True)]


@pytest.mark.parametrize("secret", ["sup3r s3cret'\"", "12345678", "line one\nline two of it"])
def test_a_sensitive_value_is_in_no_error(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(
        HEAD
        + "variables:\n  x: {sensitive: true, pattern: 'a+'}\n  y: {sensitive: true, type: integer}\n"
        + f"builder: {{machine_type: {json.dumps(secret)}, memory: {json.dumps(secret)}}}\n"
    )
    file = tmp_path / "vars.yaml"
    file.write_text(f"y: {json.dumps(secret)}\n")
    with pytest.raises(TemplateError) as caught:
        load(path, variables={"x": secret}, var_files=[file], env={})
    text = str(caught.value) + repr(caught.value.problems)
    assert "x must match" in text
    assert "y must be a whole number" in text
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text


def test_sensitive_values_inside_lists_and_maps_are_secrets(tmp_path: Path) -> None:
    path = template_with(tmp_path, "{type: map, sensitive: true}")
    (template,) = load(path, variables={"x": "{user: root, password: [hunter22, 5]}"}, env={})
    assert template.secrets.values == {"x.user": "root", "x.password.0": "hunter22", "x.password.1": "5"}
    assert template.secrets.mask("login hunter22") == "login ***"


def test_the_key_of_the_hashes_arrives(tmp_path: Path) -> None:
    path = template_with(tmp_path, "{sensitive: true}")
    hashes = {load(path, variables={"x": "hunter22"}, env={}, secret_key=key)[0].secrets.hash("hunter22") for key in (b"1", b"2")}
    assert len(hashes) == 2


SPELLINGS = {
    "plain": "pass'word of it",
    "doubled quote": "'pass''word of it'",
    "escaped": '"pass\\x27word of it"',
    "going on in the next line": "pass'word\n      of it",
    "block": "|-\n      pass'word of it",
    "folded block": ">-\n      pass'word\n      of it",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_text_that_is_recorded_has_no_sensitive_default(tmp_path: Path, spelling: str) -> None:
    (template,) = load(template_with(tmp_path, f"\n    sensitive: true\n    default: {spelling}\n    description: what y is\n"), env={})
    assert template.variables["x"].value == "pass'word of it"
    assert "word" not in template.text
    assert template.secrets.hash("pass'word of it") in template.text
    assert "description: what y is" in template.text
