"""Generates the JSON Schema (draft 2020-12) of the YAML files from the models: `bake schema`.

Editors use it through `# yaml-language-server: $schema=FILE` in a template's first line. It allows an expression (`${{ ... }}`)
wherever another type is expected. `bake validate` checks what a schema cannot express, such as files that must exist and names that
must be declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel

from baker.template import builders
from baker.template.language import BundleFile, GroupOptions, IncludeFile, Matrix, StepOptions, TemplateFile
from baker.template.steps import Kinds

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILES: Mapping[str, type[BaseModel]] = {"template": TemplateFile, "bundle": BundleFile, "include": IncludeFile}
EXPRESSION = {
    "type": "string",
    "pattern": r"\$\{\{.*\}\}",
    "title": "expression",
    "description": "${{ var.x }}, ${{ env.X }}, ${{ git.commit }}, ...",
}
LITERAL = frozenset(
    {"schema", "provisioners", "variables", "parameters", "verify", "matrix", "required"}
)  # keys whose value cannot be an expression
_ASIDE = ("description", "default", "examples", "title")

Schema = dict[str, Any]


def json_schema(file: Literal["template", "bundle", "include"] = "template", *, kinds: Kinds | None = None) -> Schema:
    """The schema of a template, of a bundle's provisioner.yaml, or of an included file."""
    if kinds is None:
        from baker.provision import registry

        kinds = cast(Kinds, registry)
    definitions: Schema = {}
    root = _hoisted(FILES[file], "", definitions)
    definitions["Step"] = _step(kinds, definitions)
    root["properties"]["provisioners"]["items"] = {"$ref": "#/$defs/Step"}
    if "builder" in root["properties"]:
        root["properties"]["builder"] |= _builder(definitions)
    if "matrix" in root["properties"]:
        root["properties"]["matrix"] = {**_hoisted(Matrix, "", definitions), "additionalProperties": _axis()}
    for schema in (root, *definitions.values()):
        _allow_expressions(schema)
    definitions["Expression"] = dict(EXPRESSION)
    if file == "include":
        root = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Step"}}, root]}
    return {"$schema": DIALECT, "title": f"bake {file}", **root, "$defs": definitions}


def _hoisted(model: type[BaseModel], prefix: str, definitions: Schema) -> Schema:
    """The schema of a model, with its own definitions moved into `definitions` under `prefix`."""
    schema = model.model_json_schema(mode="validation", ref_template="#/$defs/" + prefix + "{model}")
    definitions.update({prefix + name: each for name, each in schema.pop("$defs", {}).items()})
    return schema


def _builder(definitions: Schema) -> Schema:
    """The schema of the section `builder`: the keys of one of the builders, which `kind` selects."""
    shapes = []
    for kind in builders.KINDS.names():
        name = f"builder.{kind}"
        schema = _hoisted(builders.config_of(kind), f"{name}.", definitions)
        schema["properties"]["kind"] = {"const": kind, "description": "name of the builder"}
        required = [key for key in schema.pop("required", ()) if key != "kind"] + ["kind"] * (kind != builders.DEFAULT)
        schema |= {"required": required} if required else {}
        definitions[name] = schema
        shapes.append({"$ref": f"#/$defs/{name}"})
    return {"anyOf": shapes}


def _step(kinds: Kinds, definitions: Schema) -> Schema:
    """The schema of a step: one of the kinds, `uses` or `include`, each with the keys that are allowed beside it."""
    beside = _hoisted(StepOptions, "", definitions)["properties"]
    around = _hoisted(GroupOptions, "", definitions)["properties"]
    parameters = {"type": "object", "description": "values for its parameters"}
    shapes = []
    for name in kinds.names():
        config = kinds.get(name).Config
        definitions[f"kind.{name}"] = _hoisted(config, f"kind.{name}.", definitions)
        if config.model_config.get("coerce_numbers_to_str"):
            for each in [key for key in definitions if key == f"kind.{name}" or key.startswith(f"kind.{name}.")]:
                _numbers_are_text(definitions[each])
        shapes.append(_shape(name, {"$ref": f"#/$defs/kind.{name}"}, beside))
    uses = {"type": "string", "description": "bundle: its name, or ./path"}
    include = {"type": "string", "description": "file with steps"}
    shapes.append(_shape("uses", uses, {"with": parameters, **around}))
    shapes.append(_shape("include", include, {"with": parameters, **around}))
    return {"anyOf": shapes}


def _shape(key: str, value: Schema, beside: Schema) -> Schema:
    return {"type": "object", "properties": {key: value, **beside}, "required": [key], "additionalProperties": False}


def _axis() -> Schema:
    return {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "boolean"]}}


def _numbers_are_text(schema: Any) -> None:
    """Change the schema of a kind that takes numbers as text so that it accepts numbers."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and "enum" not in schema:
            schema["type"] = ["string", "number"]
        for each in schema.values():
            _numbers_are_text(each)
    elif isinstance(schema, list):
        for each in schema:
            _numbers_are_text(each)


def _allow_expressions(schema: Any) -> None:
    """Change `schema` so that it accepts an expression in place of every value below it."""
    if not isinstance(schema, dict):
        return
    for key, each in schema.get("properties", {}).items():
        _allow_expressions(each)
        if key not in LITERAL:
            schema["properties"][key] = _or_expression(each)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _allow_expressions(schema[key])
            schema[key] = _or_expression(schema[key])
    for each in schema.get("anyOf", []):
        _allow_expressions(each)


def _or_expression(schema: Schema) -> Schema:
    if _takes_text(schema) or schema == {"$ref": "#/$defs/Step"}:
        return schema
    aside = {key: schema[key] for key in _ASIDE if key in schema}
    inner = {key: value for key, value in schema.items() if key not in _ASIDE}
    return {**aside, "anyOf": [*(inner["anyOf"] if set(inner) == {"anyOf"} else [inner]), {"$ref": "#/$defs/Expression"}]}


def _takes_text(schema: Schema) -> bool:
    """Whether the schema accepts any text, and with it any expression."""
    if any(_takes_text(each) for each in schema.get("anyOf", [])):
        return True
    types = schema.get("type")
    free = not any(key in schema for key in ("pattern", "enum", "const", "format"))
    bare = not any(key in schema for key in ("type", "anyOf", "$ref", "enum", "const"))
    return free and (types == "string" or (isinstance(types, list) and "string" in types) or bare)
