"""Generates the template reference from the models: `python -m baker.template.reference > docs/template-reference.md`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel

from baker.template.ec2 import (  # fmt: skip
    AmiSource,
    AssumeRole,
    DeregistrationProtection,
    Ec2Spec,
    MetadataOptions,
    SourceAmiFilter,
    SpotSpec,
    SsmParameterSource,
    SubnetFilter,
)
from baker.template.language import (  # fmt: skip
    BundleFile,
    GroupOptions,
    IncludeFile,
    Matrix,
    ParameterSpec,
    PostProcessor,
    SourceSpec,
    StepOptions,
    TemplateFile,
    VariableSpec,
)
from baker.template.libvirt import LibvirtSpec
from baker.template.model import (  # fmt: skip
    CacheSpec,
    CommunicatorSpec,
    DebootstrapSource,
    ExportPostProcessor,
    FileSource,
    ImageSource,
    UrlSource,
    VerifySpec,
)
from baker.template.steps import Kinds

WIDTH = 100  # columns of the page
INTRODUCTION = """\
# Template reference

Generated from the models by `python -m baker.template.reference`; do not edit. A template is one
YAML document. Unknown keys are errors, and so are duplicate keys, tabs in the indentation, anchors,
aliases, merge keys and tags.

Sizes are written as `2GiB`, `512MiB`, `10GB` or a number of bytes; durations as `90s`, `10m`,
`1h30m`, `1d` or a number of seconds. Paths are relative to the file that names them. In a table, a
key in bold is required.

## Expressions

`${{ name }}` in a value is replaced before the value is interpreted; nothing is evaluated. A value
that is exactly one expression keeps the type of what it names. `$${{` is a literal `${{`. Inside
`{...}` and `[...]` the expression has to be quoted.

| name | meaning |
|---|---|
| `var.NAME`, `var.NAME.key` | a variable, or an entry of a map |
| `env.NAME` | an environment variable; it must be set |
| `git.commit`, `git.short`, `git.branch`, `git.dirty` | the repository around the template |
| `template.name`, `template.version`, `template.dir` | this template |
| `matrix.AXIS` | the value of an axis for this image |
| `param.NAME` | a parameter; in bundles and included files only |

A bundle sees `param`, `env`, `git` and `template`. Sensitive variables are not allowed in `name`,
`version`, `description`, `labels` and `matrix`, which are recorded.
"""

SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    (
        "Template",
        TemplateFile,
        "schema: 1\nname: web\nversion: 1.4.0\nsource: {image: debian-13@^13.1}\nprovisioners:\n  - shell: apt-get install -y nginx-light",
    ),
    (
        "variables",
        VariableSpec,
        "variables:\n  site_title: {type: string, default: Hello}\n  stage: {default: dev, allowed: [dev, prod]}\n"
        "  deploy_token: {sensitive: true}",
    ),
    (
        "matrix",
        Matrix,
        "matrix:\n  release: [trixie, bookworm]\n  flavour: [plain, docker]\n  exclude: [{release: bookworm, flavour: docker}]",
    ),
    ("source", SourceSpec, "source: {debootstrap: trixie}"),
    ("source.debootstrap", DebootstrapSource, "source:\n  debootstrap: {suite: trixie, packages: [ca-certificates], hostname: base}"),
    ("source.file", FileSource, "source: {file: {path: disks/base.qcow2}}"),
    ("source.url", UrlSource, "source:\n  url:\n    url: https://example.org/debian.qcow2\n    checksum: sha512:..."),
    ("source.image", ImageSource, "source:\n  image: {name: debian-13@^13.1, template: debian-13.yaml}"),
    ("source.ami", AmiSource, "source: {ami: ami-0123456789abcdef0}"),
    (
        "source.source_ami_filter",
        SourceAmiFilter,
        "source:\n  source_ami_filter:\n    filters: {name: debian-13-amd64-*, architecture: x86_64}\n"
        '    owners: ["136693071363"]\n    most_recent: true',
    ),
    ("source.ssm_parameter", SsmParameterSource, "source: {ssm_parameter: /aws/service/debian/release/13/latest/amd64}"),
    ("builder", LibvirtSpec, "builder: {cpus: 2, memory: 1GiB, disk_size: 8GiB, firmware: uefi}"),
    (
        "builder: ec2",
        Ec2Spec,
        "builder:\n  kind: ec2\n  region: eu-west-1\n  instance_type: [t3.small, t3a.small]\n  ami_regions: [eu-central-1]",
    ),
    ("builder: ec2, assume_role", AssumeRole, "builder: {kind: ec2, assume_role: {role_arn: 'arn:aws:iam::123456789012:role/baker'}, ...}"),
    ("builder: ec2, subnet_filter", SubnetFilter, "builder: {kind: ec2, subnet_filter: {filters: {tag:tier: build}}, ...}"),
    ("builder: ec2, spot", SpotSpec, "builder: {kind: ec2, spot: {max_price: '0.05', fallback: on_demand}, ...}"),
    ("builder: ec2, metadata_options", MetadataOptions, "builder: {kind: ec2, metadata_options: {http_put_response_hop_limit: 2}, ...}"),
    (
        "builder: ec2, deregistration_protection",
        DeregistrationProtection,
        "builder: {kind: ec2, deregistration_protection: {with_cooldown: true}, ...}",
    ),
    ("communicator", CommunicatorSpec, "communicator: {ssh_username: debian, ssh_timeout: 5m}"),
    (
        "provisioners: every step",
        StepOptions,
        "provisioners:\n  - name: packages\n    shell: apt-get update\n    timeout: 10m\n    retries: 2\n    only: web-trixie-*",
    ),
    ("provisioners: cache", CacheSpec, "provisioners:\n  - shell: apt-get update\n    cache: {max_age: 1d}"),
    (
        "provisioners: uses and include",
        GroupOptions,
        "provisioners:\n  - uses: hardening\n    with: {ssh_password_login: false}\n  - include: steps/common.yaml\n    with: {who: me}",
    ),
    ("verify", VerifySpec, "verify:\n  - testinfra: tests/test_web.py\n    timeout: 5m"),
    ("post_processors", PostProcessor, "post_processors:\n  - export: {format: qcow2, compress: zstd}"),
    ("post_processors.export", ExportPostProcessor, "post_processors:\n  - export: {format: raw, path: out/web.img}"),
    (
        "Bundle: provisioner.yaml",
        BundleFile,
        "schema: 1\nname: greeter\nparameters:\n  who: {type: string}\nprovisioners:\n"
        '  - file: {content: "Hello ${{ param.who }}", destination: /etc/motd}',
    ),
    ("Bundle: parameters", ParameterSpec, "parameters:\n  port: {type: integer, default: 80}"),
    ("Included file", IncludeFile, "provisioners:\n  - shell: apt-get update"),
)


def markdown(*, kinds: Kinds | None = None) -> str:
    """The whole reference as Markdown."""
    if kinds is None:
        from baker.provision import registry

        kinds = cast(Kinds, registry)
    parts = [INTRODUCTION]
    for title, model, example in SECTIONS:
        parts.append(_section(f"## {title}", model, example))
        if model is GroupOptions:
            parts += [_section(f"## provisioners: {name}", kinds.get(name).Config, "") for name in kinds.names()]
    return "\n".join(parts)


def _section(title: str, model: type[BaseModel], example: str) -> str:
    schema = model.model_json_schema(mode="validation")
    definitions = schema.get("$defs", {})
    body = schema if "properties" in schema else _object(schema, definitions)
    about = textwrap.wrap(model.__doc__ or "", WIDTH, break_long_words=False, break_on_hyphens=False)
    text = [title, "", *about, ""]
    if example:
        text += ["```yaml", example, "```", ""]
    text += ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = set(body.get("required", []))
    for key, each in body["properties"].items():
        text.append(_row(key, each, key in required, definitions))
    return "\n".join([*text, ""])


def _object(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of the mapping, for a model that also has a short form."""
    for each in schema.get("anyOf", []):
        found: dict[str, Any] = definitions[each["$ref"].rsplit("/", 1)[1]] if "$ref" in each else each
        if "properties" in found:
            return found
    return {"properties": {}}


def _row(key: str, schema: dict[str, Any], required: bool, definitions: dict[str, Any]) -> str:
    name = f"**`{key}`**" if required else f"`{key}`"
    kind = " or ".join(dict.fromkeys(_types(schema, definitions)))
    default = schema.get("default")
    shown = "" if required or default in (None, "", [], {}) or isinstance(default, dict) else f"`{_default(default, kind)}`"
    meaning = schema.get("description", "").replace("|", "\\|")
    return f"| {name} | {kind} | {shown} | {meaning} |"


def _default(value: Any, kind: str) -> str:
    """A default value as a user would type it."""
    if kind == "size":
        unit = next(factor for factor in (1 << 30, 1 << 20, 1 << 10, 1) if value % factor == 0)
        return f"{value // unit}{ {1 << 30: 'GiB', 1 << 20: 'MiB', 1 << 10: 'KiB', 1: ''}[unit] }".replace(" ", "")
    if kind == "duration":
        return f"{value / 60:g}m" if value and value % 60 == 0 else f"{value:g}s"
    return value if isinstance(value, str) else json.dumps(value)


def _types(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """The types that a value may have, in words."""
    if schema.get("title") in ("size", "duration"):
        yield schema["title"]
    elif "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        yield from _types({key: value for key, value in target.items() if key != "title"}, definitions)
    elif "anyOf" in schema or "allOf" in schema or "oneOf" in schema:
        for each in schema.get("anyOf") or schema.get("allOf") or schema["oneOf"]:
            yield from _types(each, definitions)
    elif "enum" in schema or "const" in schema:
        yield ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    elif schema.get("type") == "array":
        of = " or ".join(dict.fromkeys(_types(schema.get("items", {}), definitions)))
        yield f"list of {of}s" if of in ("string", "mapping", "integer") else f"list of {of}" if of != "anything" else "list"
    elif schema.get("type") != "null":
        yield {"object": "mapping", "boolean": "`true`, `false`"}.get(schema.get("type", ""), schema.get("type", "anything"))


if __name__ == "__main__":
    sys.stdout.write(markdown())
