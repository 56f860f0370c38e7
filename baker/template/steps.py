"""Reads `provisioners`: expands includes and bundles, replaces expressions, and validates each step's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from baker.core.errors import BakeError
from baker.provision.base import Provisioner
from baker.provision.registry import BUILT_IN
from baker.template.base_model import Frozen
from baker.template.bundles import Files, shown_path
from baker.template.interpolate import Scope, interpolate, named
from baker.template.language import BundleFile, GroupOptions, IncludeFile, ParameterSpec, StepOptions
from baker.template.matrix import selected
from baker.template.model import Step, TestinfraVerify, Variable, VerifySpec
from baker.template.validation_errors import at_key, validate
from baker.template.variables import Given, as_json, hide_defaults, resolve_all, secret_values, values
from baker.template.yaml_document import Item, Problems, quote, suggest

OPTIONS = frozenset(field.alias or name for name, field in StepOptions.model_fields.items())
GROUP_OPTIONS = frozenset(field.alias or name for name, field in GroupOptions.model_fields.items())
DEEPEST = 16  # includes and bundles that may be nested
MOST = 1000  # steps that an image may have


class Kinds(Protocol):
    """The provisioner kinds: the functions of baker.provision.registry."""

    def names(self) -> tuple[str, ...]:
        """The names of all kinds, for messages and for the schema."""

    def get(self, name: str) -> Provisioner:
        """Return one kind. UsageError when there is none of that name, or when its package is broken."""


@dataclass(frozen=True)
class Frame:
    """The file that steps are being read from, with the scope of its expressions and the options that hold for all of its steps."""

    base_dir: Path
    scope: Scope
    bundle: str = ""
    stack: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    wanted: bool = True  # False: only/except exclude the group; its problems are reported nevertheless


@dataclass
class Expanded:
    """The result of expanding `provisioners`."""

    steps: list[Step] = field(default_factory=list)
    verify: list[TestinfraVerify] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)


class Expander:
    """Expands the `provisioners` of one image. `images`: every image of the template with its matrix row, this one first."""

    def __init__(self, files: Files, kinds: Kinds, problems: Problems, images: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self.files = files
        self.kinds = kinds
        self.problems = problems
        self.images = images
        self.found = Expanded()

    def expand(self, item: Item | None, frame: Frame) -> None:
        """Add the steps in `item`, a list."""
        if item is None or item.broken:
            return
        if not isinstance(item.value, list):
            hint = "write e.g. - shell: apt-get update"
            self.problems.add(item.place, "provisioners must be a list of steps", hint, code="template.wrong-type")
            return
        for each in item.value:
            if len(self.found.steps) > MOST:
                self.problems.add(each.place, f"the image has more than {MOST} steps", code="template.too-large")
                return
            self._one(each, frame)

    def _one(self, item: Item, frame: Frame) -> None:
        if item.broken:
            return
        if not isinstance(item.value, dict):
            self.problems.add(
                item.place, "a step must be a mapping with a kind", "write e.g. - shell: apt-get update", code="template.wrong-type"
            )
            return
        if "uses" in item.value or "include" in item.value:
            self._group(item, frame)
        else:
            self._step(item, frame)

    # -- a step -----------------------------------------------------------------------------------------------------------------

    def _step(self, item: Item, frame: Frame) -> None:
        kind = self._kind(item)
        if kind is None:
            return
        item = interpolate(item, frame.scope, self.problems)
        options = validate(StepOptions, item.without(kind), self.problems)
        provisioner = self._provisioner(kind, item)
        config = validate(provisioner.Config, item.value[kind], self.problems, kind) if provisioner else None
        if provisioner is None or config is None:
            return
        self._check_inputs(provisioner, config, item.value[kind], frame)
        if options is None or not self._wanted(options, item, frame):
            return
        common = {**frame.options, **options.model_dump(exclude_unset=True)}
        self.found.steps.append(
            Step(
                name=options.name or f"{kind} {len(self.found.steps) + 1}",
                kind=kind,
                config=config,
                base_dir=frame.base_dir.resolve(),
                origin=str(item.place),
                bundle=frame.bundle,
                timeout=common.get("timeout"),
                retries=common.get("retries", 0),
                pause_before=options.pause_before,
                on_error=common.get("on_error"),
                cache=options.cache if "cache" in options.model_fields_set else frame.options.get("cache", options.cache),
            )
        )

    def _kind(self, item: Item) -> str | None:
        """The key that names the kind of a step; None after reporting that there is none, or several."""
        candidates: list[str] = [key for key in item.value if key not in OPTIONS]
        if len(candidates) > 1:
            known = [key for key in candidates if key in self.kinds.names()]
            if len(known) == 1:
                return known[0]  # the others are reported as unknown keys
            message = f"a step has one kind, not {' and '.join(candidates)}"
            self.problems.add(item.place, message, "write a step for each", code="template.several-kinds")
            return None
        if not candidates:
            hint = f"one of {', '.join((*self.kinds.names(), 'uses', 'include'))}"
            self.problems.add(item.place, "the step has no kind", hint, code="template.missing-kind")
            return None
        return candidates[0]

    def _provisioner(self, kind: str, item: Item) -> Provisioner | None:
        place = at_key(item, kind)
        if kind not in BUILT_IN and kind not in self.kinds.names():
            names = [*self.kinds.names(), "uses", "include", *OPTIONS]
            self.problems.add(place, f"there is no provisioner kind {quote(kind)}", suggest(kind, names), code="plugin.unknown")
            return None
        try:
            return self.kinds.get(kind)
        except BakeError as error:
            self.problems.add(place, error.message, error.hint, code=error.code)
        return None

    def _check_inputs(self, provisioner: Provisioner, config: Any, item: Item, frame: Frame) -> None:
        """Report each file that a step reads but that does not exist, at the value that names it."""
        try:
            found = list(provisioner.inputs(config, frame.base_dir))
            missing = [path for path in found if not path.exists()]
        except (BakeError, OSError) as error:
            message, code = str(getattr(error, "message", error)), getattr(error, "code", "template.unreadable-file")
            self.problems.add(item.place, message, getattr(error, "hint", ""), code=code)
            return
        for path in missing:
            naming = next((each for each in item.walk() if isinstance(each.value, str) and _names(each.value, path, frame.base_dir)), item)
            shown = quote(naming.source or path.name) if naming is not item else quote(shown_path(path, item.place))
            hint = f"looked for {shown_path(path, item.place)}"
            self.problems.add(naming.place, f"there is no file {shown}", hint, code="template.missing-file")

    def _wanted(self, options: GroupOptions, item: Item, frame: Frame) -> bool:
        """Whether only/except select it for this image. Reports patterns that no image can match."""
        for key, patterns in (("only", options.only), ("except", options.except_)):
            for pattern in patterns if not frame.stack else ():
                if not any(selected(name, row, (pattern,), ()) for name, row in self.images):
                    known = ", ".join(name for name, _ in self.images)
                    message = f"{key}: no image here matches {quote(pattern)}"
                    self.problems.add(item.value[key].place, message, f"images: {known}", code="template.no-such-image")
        name, row = self.images[0]
        return frame.wanted and selected(name, row, options.only, options.except_)

    # -- includes and bundles -----------------------------------------------------------------------------------------------------

    def _group(self, item: Item, frame: Frame) -> None:
        if "uses" in item.value and "include" in item.value:
            message = "a step has one kind, not uses and include"
            self.problems.add(item.place, message, "write a step for each", code="template.several-kinds")
            return
        key = "uses" if "uses" in item.value else "include"
        item = interpolate(item, frame.scope, self.problems)
        target = item.value[key]
        options = self._group_options(item, key)
        if target.broken:
            return
        if not isinstance(target.value, str) or not target.value:
            message = f"{key} must be a {'bundle' if key == 'uses' else 'file'}"
            self.problems.add(target.place, message, "write its name or path", code="template.wrong-type")
            return
        path = self.files.bundle(target.value, frame.base_dir, target.place) if key == "uses" else frame.base_dir / target.value
        if path is None or self._cycle(path, target, frame):
            return
        if key == "include" and not path.is_file():
            hint = f"looked for {shown_path(path, target.place)}"
            self.problems.add(target.place, f"there is no file {quote(target.source)}", hint, code="template.missing-file")
            return
        root = self.files.open(path, shown_path(path, target.place))
        if root is None:
            return
        inner = replace(
            frame,
            base_dir=path.parent,
            stack=(*frame.stack, path.resolve()),
            wanted=options is not None and self._wanted(options, item, frame),
            options={**frame.options, **_given(options)},
        )
        if key == "uses":
            self._bundle(root, item, inner)
        else:
            self._include(root, item, inner)

    def _group_options(self, item: Item, key: str) -> GroupOptions | None:
        rest = item.without(key, "with")
        for name in [name for name in rest.value if name not in GROUP_OPTIONS]:
            message, hint = f"unknown key {quote(name)} beside {key}", suggest(name, ["with", *GROUP_OPTIONS])
            self.problems.add(rest.keys[name], message, hint, code="template.unknown-key")
            rest = rest.without(name)
        return validate(GroupOptions, rest, self.problems)

    def _cycle(self, path: Path, target: Item, frame: Frame) -> bool:
        chain = (*frame.stack, path.resolve())
        if path.resolve() in frame.stack:
            names = [f"{each.parent.name}/{each.name}" if each.name == "provisioner.yaml" else each.name for each in chain]
            message, hint = f"{quote(target.source)} includes itself", " -> ".join(names[names.index(names[-1]) :])
            self.problems.add(target.place, message, hint, code="template.include-cycle")
            return True
        if len(chain) > DEEPEST:
            self.problems.add(target.place, f"more than {DEEPEST} includes and bundles are nested", code="template.too-large")
            return True
        return False

    def _include(self, root: Item, item: Item, frame: Frame) -> None:
        used: set[str] = set()
        if isinstance(root.value, list):
            given = _with(item, self.problems)
            parameters = {name: each.item.data() for name, each in given.items()}
            self.expand(root, replace(frame, scope=frame.scope.plus(param=named(parameters, "parameter", used))))
            for name in [name for name in given if name not in used]:
                place = item.value["with"].keys[name]
                message, hint = f"the included file does not use {quote(name)}", suggest(name, sorted(used))
                self.problems.add(place, message, hint, code="template.unknown-parameter")
        elif self._head(IncludeFile, root):
            _, lookup = self._parameters(root, item, frame.scope, item.value["include"].value)
            self.expand(root.get("provisioners"), replace(frame, scope=frame.scope.plus(param=lookup)))

    def _bundle(self, root: Item, item: Item, frame: Frame) -> None:
        if not self._head(BundleFile, root):
            return
        name, directory = root.get("name"), frame.base_dir.resolve().name
        if name is not None and isinstance(name.value, str) and name.value != directory:
            message = f"the bundle is named {name.value}, but its directory {directory}"
            self.problems.add(name.place, message, "they must be the same", code="template.bundle-misnamed")
        parameters, lookup = self._parameters(root, item, frame.scope, directory)
        kept = {name: frame.scope.roots[name] for name in ("env", "git", "template")}
        why = "a bundle sees its own parameters only: pass the value in `with`"
        scope = Scope({**kept, "param": lookup}, extra={"var": why, "matrix": why})
        inner = replace(frame, scope=scope, bundle=directory)
        self.expand(root.get("provisioners"), inner)
        self._verify(root, inner, as_json(parameters))

    def _head(self, model: type[Frozen], root: Item) -> bool:
        """Check the keys of a bundle's or an include's file that are not read elsewhere; False when the file is not a mapping."""
        if not isinstance(root.value, dict):
            self.problems.add(root.place, "must be a mapping of keys", "write e.g. provisioners: [...]", code="template.wrong-type")
            return False
        validate(model, root.without("verify", "parameters"), self.problems)
        return True

    def _parameters(self, root: Item, item: Item, scope: Scope, what: str) -> tuple[dict[str, Variable], Any]:
        """The values of the parameters, and the lookup function for `param.x`."""
        declared = root.get("parameters") or Item({}, root.place)
        if not isinstance(declared.value, dict):
            message, hint = "parameters must be a mapping of names to declarations", "write e.g. port: {default: 80}"
            self.problems.add(declared.place, message, hint, code="template.wrong-type")
            declared = Item({}, root.place)
        read = {name: validate(ParameterSpec, each, self.problems, f"parameters.{name}") for name, each in declared.value.items()}
        specs = {name: spec for name, spec in read.items() if spec}
        hide_defaults(specs, self.problems)
        # a missing value is reported where the bundle is used, a bad declaration where it is written
        declared.place = item.value["with"].place if "with" in item.value else item.value.get("uses", item).place
        found = resolve_all(specs, declared, [_with(item, self.problems)], self.problems, "parameter")
        self.found.secrets |= secret_values(found, f"{what}.")
        return found, named(values(found, declared.value), "parameter")

    def _verify(self, root: Item, frame: Frame, parameters: Mapping[str, Any]) -> None:
        declared = root.get("verify")
        specs = verify_items(declared, frame.scope, frame.base_dir, self.problems)
        usual = frame.base_dir / f"test_{frame.bundle.replace('-', '_')}.py"
        named_already = any(frame.base_dir / path == usual for spec in specs for path in spec.testinfra)
        if usual.is_file() and not named_already:
            specs = [VerifySpec(testinfra=(Path(usual.name),)), *specs]
        for spec in specs if frame.wanted else ():
            self.found.verify.append(
                TestinfraVerify(
                    testinfra=spec.testinfra,
                    timeout=spec.timeout,
                    vars={**parameters, **spec.vars},
                    base_dir=frame.base_dir.resolve(),
                    bundle=frame.bundle,
                )
            )


def verify_items(item: Item | None, scope: Scope, base_dir: Path, problems: Problems) -> list[VerifySpec]:
    """The valid items of a `verify` list. Reports the others, and files that do not exist."""
    if item is None or item.broken:
        return []
    if not isinstance(item.value, list):
        problems.add(item.place, "verify must be a list", "write e.g. - testinfra: test_web.py", code="template.wrong-type")
        return []
    found = []
    for each in item.value:
        one = interpolate(each, scope, problems)
        spec = validate(VerifySpec, one, problems)
        if spec is None:
            continue
        found.append(spec)
        for path in spec.testinfra:
            if not (base_dir / path).exists():
                report_missing(one, path, base_dir, problems)
    return found


def report_missing(item: Item, path: Path, base_dir: Path, problems: Problems) -> None:
    """Report that a file which a value below `item` names does not exist."""
    naming = next((each for each in item.walk() if each.value == str(path) or _names(each.value, base_dir / path, base_dir)), item)
    hint = f"looked for {shown_path(base_dir / path, item.place)}"
    problems.add(naming.place, f"there is no file {quote(path)}", hint, code="template.missing-file")


def _names(value: Any, path: Path, base_dir: Path) -> bool:
    """Whether `value` is a text that names `path`."""
    if not isinstance(value, str) or not value or "\n" in value or "\0" in value or len(value) > 4096:
        return False
    return base_dir / value == path or Path(value) == path


def _with(item: Item, problems: Problems) -> dict[str, Given]:
    given = item.get("with")
    if given is None or given.value is None or given.broken:
        return {}
    if not isinstance(given.value, dict):
        hint = "write e.g. with: {port: 8080}"
        problems.add(given.place, "with must be a mapping of parameters to values", hint, code="template.wrong-type")
        return {}
    return {name: Given(each, "with") for name, each in given.value.items()}


def _given(options: GroupOptions | None) -> dict[str, Any]:
    """The options of a group that hold for each step inside; only/except apply to the group as a whole."""
    if options is None:
        return {}
    names = options.model_fields_set - {"only", "except_"}
    return {name: getattr(options, name) for name in names}
