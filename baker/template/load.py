"""Loads templates from YAML files, or reports every problem at once, each as `web.yaml:12:5: what is wrong`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from baker.core.errors import BakeError, TemplateError, UsageError
from baker.core.secrets import SEALED, Secrets
from baker.template import builders, matrix
from baker.template import variables as inputs
from baker.template.builders import BuilderConfig
from baker.template.bundles import Files
from baker.template.epoch import VARIABLE, DateEpoch
from baker.template.git import GitFacts
from baker.template.interpolate import NoValue, Scope, interpolate, named
from baker.template.language import TemplateFile, VariableSpec
from baker.template.model import DebootstrapSource, FileSource, ImageSource, Template, TestinfraVerify, Variable
from baker.template.steps import Expander, Frame, Kinds, report_missing, verify_items
from baker.template.validation_errors import validate
from baker.template.yaml_document import Item, Problems, quote, suggest, wrap

PUBLIC = ("name", "version", "description", "labels")  # keys that are recorded and shown, so sensitive values are not allowed


def load(
    path: Path,
    *,
    variables: Mapping[str, str] | None = None,
    var_files: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    except_: Sequence[str] = (),
    secret_key: bytes = b"",
    search: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
    kinds: Kinds | None = None,
    git: GitFacts | None = None,
) -> list[Template]:
    """Return the templates in the file `path`: one, or one for each combination of its matrix.

    `variables` (text) override `var_files` (YAML), those BAKE_VAR_* in `env`, and those the defaults. `only` and `except_` choose
    among the images: names with * and ?, or "axis=value". `search` adds directories of bundles. `overrides` replaces values of the
    file by dotted key ("builder.accelerator": "tcg"). `secret_key` is for the keyed hashes of sensitive values. `kinds` are the provisioner
    kinds; by default the built-in ones and the installed plugins. `git`: facts about the repository, to avoid running git again.

    Raises TemplateError with every problem of the file and of all files that it leads to, and UsageError when `only` and `except_`
    leave no image. Runs no process unless the template uses `${{ git.* }}`.
    """
    if kinds is None:
        from baker.provision import registry

        kinds = cast(Kinds, registry)
    problems = Problems()
    files = Files(problems, search)
    document = files.read(path, str(path))
    loader = _Loader(path, files, kinds, problems, env=os.environ if env is None else env, secret_key=secret_key)
    loader.git = git or loader.git
    root = loader.root(document.shown, overrides or {}) if document else None
    images: list[_Image] = []
    if root is not None and document is not None:
        loader.text = document.text
        images = loader.images(root, variables or {}, var_files)
    made = [loader.template(image, images) for image in images]
    if problems:
        raise TemplateError(problems.list())
    chosen = [each for each, image in zip(made, images, strict=True) if matrix.selected(image.name, image.row, only, except_)]
    if not chosen:
        known = ", ".join(image.name for image in images)
        raise UsageError(f"--only and --except leave no image of {path}", hint=f"images: {known}", code="usage.no-image-selected")
    return [each for each in chosen if each is not None]


@dataclass(frozen=True)
class _Image:
    """One combination of the matrix, with the file's tree and the scope of its expressions."""

    name: str
    row: Mapping[str, Any]
    root: Item
    scope: Scope
    variables: Mapping[str, Variable]


class _UsedEnvironment:
    """Looks up environment variables and remembers those that were used."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.used: dict[str, str] = {}

    def lookup(self, name: str) -> str:
        if name not in self.env:
            raise NoValue(
                f"the environment variable {name} is not set",
                "set it, or use a variable with a default",
                code="template.environment-not-set",
            )
        self.used[name] = self.env[name]
        return self.env[name]


class _Loader:
    """Loads one template file."""

    def __init__(self, path: Path, files: Files, kinds: Kinds, problems: Problems, *, env: Mapping[str, str], secret_key: bytes) -> None:
        self.path = path
        self.text = ""
        self.directory = path.parent
        self.files = files
        self.kinds = kinds
        self.problems = problems
        self.env = env
        self.secret_key = secret_key
        self.git = GitFacts(path.parent.resolve())
        self.environment = _UsedEnvironment(env)

    def root(self, shown: str, overrides: Mapping[str, Any]) -> Item | None:
        """Return the file's tree with `overrides` applied."""
        root = self.files.open(self.path, shown)
        if root is None:
            return None
        if not isinstance(root.value, dict):
            self.problems.add(root.place, "a template is a mapping of keys to values", "begin with: schema: 1", code="template.wrong-type")
            return None
        for key, value in overrides.items():
            _override(root, key, value)
        return root

    # -- scopes and images ------------------------------------------------------------------------------------------------------

    def images(self, root: Item, given: Mapping[str, str], var_files: Sequence[Path]) -> list[_Image]:
        """Every image of the file, with its variables, its matrix row and its name."""
        scope = Scope(
            {"env": self.environment.lookup, "git": self._git, "template": named({"dir": str(self.directory.resolve())}, "fact")},
            extra={"param": "parameters are for bundles and includes", "matrix": "this template has no matrix"},
        )
        specs, declared = self._declarations(root, scope)
        found = inputs.resolve_all(
            specs,
            declared,
            [
                inputs.from_command_line(given),
                inputs.from_files(var_files, self.files, self.problems),
                inputs.from_environment(self.env, specs),
            ],
            self.problems,
        )
        sensitive = frozenset(f"var.{name}" for name, spec in specs.items() if spec.sensitive)
        scope = Scope({"var": named(inputs.values(found, declared.value), "variable"), **scope.roots}, sensitive, scope.extra)
        axes = root.get("matrix")
        rows = matrix.combinations(interpolate(axes, scope, self.problems, public=True) if axes else None, self.problems)
        scopes = [scope.plus(matrix=named(row, "axis")) if row else scope for row in rows]
        bases = [self._text(root, "name", each) for each in scopes]
        images = []
        for name, row, each in zip(matrix.names(bases, rows), rows, scopes, strict=True):
            facts = {"name": name, "version": self._text(root, "version", each), "dir": str(self.directory.resolve())}
            images.append(_Image(name, row, root, each.plus(template=named(facts, "fact")), found))
        self._check_names(images, root)
        return images

    def _declarations(self, root: Item, scope: Scope) -> tuple[dict[str, VariableSpec], Item]:
        """The declared variables. An invalid declaration is reported and left out."""
        section = root.get("variables")
        if section is None or not isinstance(section.value, dict):
            return {}, Item({}, root.place)  # a wrong type is reported with the whole file
        section = interpolate(section, scope, self.problems)
        found = {name: validate(VariableSpec, item, self.problems, f"variables.{name}") for name, item in section.value.items()}
        specs = {name: spec for name, spec in found.items() if spec}
        inputs.hide_defaults(specs, self.problems)
        return specs, section

    def _git(self, name: str) -> Any:
        if name not in ("commit", "short", "branch", "dirty"):
            raise NoValue(f"git has nothing called {quote(name)}", suggest(name, ["commit", "short", "branch", "dirty"]))
        value = getattr(self.git, name)
        if self.git.error:
            raise NoValue(f"git.{name} has no value: {self.git.error}", code="template.no-git-value")
        if value == "":
            why = "no branch is checked out" if name == "branch" else "there is no commit yet"
            raise NoValue(f"git.{name} has no value: {why}", code="template.no-git-value")
        return value

    def _text(self, root: Item, key: str, scope: Scope) -> str:
        """The value of `name` or `version`; "" when it has a problem, which the model reports."""
        item = root.get(key)
        value = interpolate(item, scope, Problems(), public=True).value if item else None
        return value if isinstance(value, str) else ""

    def _check_names(self, images: Sequence[_Image], root: Item) -> None:
        names = [image.name for image in images]
        for name in sorted({each for each in names if names.count(each) > 1 and each}):
            item = root.get("name") or root
            message = f"{names.count(name)} images of the matrix are called {name}"
            self.problems.add(item.place, message, "use all axes in the name", code="template.duplicate-image")

    # -- one image ------------------------------------------------------------------------------------------------------------

    def template(self, image: _Image, images: Sequence[_Image]) -> Template | None:
        """The template of one image; None after reporting problems."""
        model, builder = self._file(image)
        others = [(each.name, each.row) for each in images if each is not image]
        expander = Expander(self.files, self.kinds, self.problems, [(image.name, image.row), *others])
        frame = Frame(self.directory, image.scope)
        expander.expand(image.root.get("provisioners"), frame)
        specs = verify_items(image.root.get("verify"), image.scope, self.directory, self.problems)
        if model is None or builder is None or self.problems:
            return None
        base_dir = self.directory.resolve()
        own = [TestinfraVerify(testinfra=spec.testinfra, timeout=spec.timeout, vars=spec.vars, base_dir=base_dir) for spec in specs]
        secrets = Secrets({**inputs.secret_values(image.variables), **expander.found.secrets}, self.secret_key)
        return Template(
            name=image.name,
            version=model.version,
            description=model.description,
            labels=model.labels,
            variables=image.variables,
            source=model.source.chosen,
            builder=builders.anchored(builder, base_dir),
            communicator=model.communicator,
            provisioners=tuple(expander.found.steps),
            verify=(*own, *expander.found.verify),
            on_error=model.on_error,
            post_processors=tuple(each.export for each in model.post_processors),
            reproducible=model.reproducible,
            path=self.path.absolute(),
            text=_sealed(self.text, image.root, secrets),
            files=tuple(each for each in self.files.seen if each != self.path.resolve()),
            matrix=image.row,
            secrets=secrets,
            environment=dict(self.environment.used),
            git=self.git,
            epoch=DateEpoch(self.path.absolute(), self.env.get(VARIABLE, ""), model.reproducible),
            contents=self.files.contents,
        )

    def _file(self, image: _Image) -> tuple[TemplateFile | None, BuilderConfig | None]:
        """Return the sections that are not read elsewhere, and the builder. None in place of one whose problems have been reported."""
        rest = image.root.without("variables", "matrix", "provisioners", "verify")
        parts = {key: interpolate(item, image.scope, self.problems, public=key in PUBLIC) for key, item in rest.value.items()}
        whole = Item(parts, rest.place, rest.keys, broken=rest.broken)
        section = image.root.get("variables")
        if section is not None and not isinstance(section.value, dict):
            message, hint = "variables must be a mapping of names to declarations", "write e.g. title: {default: Hello}"
            self.problems.add(section.place, message, hint, code="template.wrong-type")
        builder = self._builder(parts.get("builder") or Item({}, rest.place))
        others = parts | ({"builder": Item({}, rest.place)} if "builder" in parts else {})
        model = validate(TemplateFile, Item(others, rest.place, rest.keys, broken=rest.broken), self.problems)
        if model is not None:
            self._check_version(model, whole)
        if model is not None and builder is not None:
            self._check_files(model, builder, whole)
            self._check_source(model, builder, whole)
        return model, builder

    def _builder(self, item: Item) -> BuilderConfig | None:
        """The section `builder`, validated by the model of the builder that it names."""
        named_kind = item.get("kind")
        if named_kind is not None and named_kind.broken:
            return None
        kind = named_kind.value if named_kind is not None and isinstance(named_kind.value, str) else builders.DEFAULT
        place = named_kind.place if named_kind is not None else item.place
        if kind not in builders.KINDS.built_in and kind not in builders.KINDS.names():
            hint = suggest(kind, builders.KINDS.names())
            self.problems.add(place, f"there is no builder {quote(kind)}", hint, code="plugin.unknown")
            return None
        try:
            config = builders.config_of(kind)
        except BakeError as error:
            self.problems.add(place, error.message, error.hint, code=error.code)
            return None
        return validate(config, item, self.problems, "builder")

    def _check_source(self, model: TemplateFile, builder: BuilderConfig, item: Item) -> None:
        """Report a source that the builder cannot start from. A catalog image is checked when it is resolved."""
        kind = model.source.chosen.kind
        if kind in builder.sources:
            return
        section = item.value["source"]
        hint = f"it starts from {', '.join(builder.sources)}"
        others = [name for name in builders.KINDS.built_in if kind in builders.config_of(name).sources]
        if others:
            hint += f"; {kind} is a source for builder: {{kind: {' or '.join(others)}, ...}}"
        place = section.keys.get(kind, section.place)
        self.problems.add(place, f"the builder {builder.kind} cannot start from {kind}", hint, code="template.source-of-another-builder")

    def _check_version(self, model: TemplateFile, item: Item) -> None:
        """Report an invalid version constraint. Whether an image satisfies it is checked later."""
        source = model.source.chosen
        if isinstance(source, ImageSource) and "@" in source.image:
            from baker.catalog import reference

            name, _, wanted = source.image.partition("@")
            if not reference.understood(wanted):
                section = item.value["source"].get("image")
                named = section.get("name") or section
                message = f"{quote(wanted)} is not a version constraint"
                self.problems.add(named.place, message, reference.examples(name), code="template.bad-value")

    def _check_files(self, model: TemplateFile, builder: BuilderConfig, item: Item) -> None:
        """Report files on this host that the sections name but that do not exist."""
        source = model.source.chosen
        named_here: list[tuple[str, Path | None]] = [("communicator", model.communicator.ssh_private_key_file)]
        if isinstance(source, FileSource):
            named_here.append(("source", source.path))
        elif isinstance(source, DebootstrapSource):
            named_here.append(("source", source.keyring))
        elif isinstance(source, ImageSource):
            named_here.append(("source", source.template))
        named_here += [("builder", path) for path in builders.files_of(builder).values()]
        for key, path in named_here:
            if path is None:
                continue
            if not (self.directory / path.expanduser()).exists():
                report_missing(item.value[key], path, self.directory, self.problems)


def _sealed(text: str, root: Item, secrets: Secrets) -> str:
    """Return the template's text with keyed hashes in place of sensitive values.

    YAML may spell a value in another way (a doubled quote, a block, a folded line). Then it is found by the position of its scalar.
    """
    if not secrets.values:
        return text
    scalars = [item for item in root.walk() if isinstance(item.source, str) and item.place.document is root.place.document]
    for item in sorted(scalars, key=lambda item: item.start, reverse=True):
        sealed, raw = secrets.seal(item.source), text[item.start : item.end].rstrip()
        if sealed.count(SEALED) > secrets.seal(raw).count(SEALED):
            text = f"{text[: item.start]}{json.dumps(sealed, ensure_ascii=False)}{text[item.start + len(raw) :]}"
    return secrets.seal(text)


def _override(root: Item, key: str, value: Any) -> None:
    """Put `value` at the dotted `key`."""
    *above, last = key.split(".")
    item = root
    for part in above:
        if not isinstance(item.value.get(part), Item) or not isinstance(item.value[part].value, dict):
            item.value[part] = Item({}, item.place)
            item.keys[part] = item.place
        item = item.value[part]
    item.value[last] = wrap(value, inputs.outside(key).place)
    item.keys[last] = item.value[last].place
