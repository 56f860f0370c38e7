"""The models of builders: the keys below `builder`, and what templates, plans and records get from them.

A builder has two parts under one name. This part is a pydantic model, which loads no other library; the other part runs machines
(baker/machines). The built-in models are in libvirt.py and ec2.py beside this file. A plugin has both parts in one class of the
entry-point group `baker.builders`: the class runs machines, and its attribute `Config` is the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from baker.core.digests import file_digest
from baker.core.errors import UsageError
from baker.core.model import MachineSpec
from baker.core.plugins import Plugins
from baker.template.base_model import Frozen

DEFAULT = "libvirt"  # the builder of a template that names none


class BuilderConfig(Frozen):
    """Base class of the models of builders. A subclass has the builder's keys, and overrides what differs for its machines.

    A value of type Path is a file on this host: bake reports one that is missing, and makes it absolute.
    """

    sources: ClassVar[tuple[str, ...]] = (
        "debootstrap",
        "file",
        "url",
        "image",
    )  # sources that its machines can start from; these are disks on this host
    publishes: ClassVar[bool] = False  # its images are stored where its machines run, not on this host: see machines.base.Publisher
    reaches_host: ClassVar[bool] = True  # its machines can reach a port of this host, so downloads go through bake's proxy

    kind: str

    def describe(self) -> str:
        """A short description of the machine, for `bake plan`."""
        return self.kind

    def machine_spec(self) -> MachineSpec:
        """The properties of the machine that bake itself uses."""
        return MachineSpec()

    def starts_at_epoch(self) -> bool:
        """Whether the machine's clock starts at SOURCE_DATE_EPOCH instead of the real time."""
        return False

    def machine_key(self, machine: MachineSpec) -> Mapping[str, Any]:
        """The properties of the machine that a step can see. They are part of the key of every step.

        `machine` has the clock that the plan sets. By default these are all keys, with files by their content, so that every change
        changes the key. Values must be JSON values.
        """
        key = self.model_dump(mode="json", exclude={"kind"})
        key |= {name: file_digest(path) for name, path in files_of(self).items()}
        return key if machine.clock is None else key | {"clock": machine.clock}

    def image_key(self) -> Mapping[str, Any]:
        """Properties of the image besides its content, such as its name and permissions where it is published.

        They are part of the image's fingerprint.
        """
        return {}

    def to_record(self) -> Mapping[str, Any]:
        """The machine in the record of a build, as JSON values. Secret values are replaced later.

        Entries with the names of fields of MachineSpec determine the machine that `bake run` and `bake shell` start from the image.
        """
        return self.model_dump(mode="json")

    @classmethod
    def from_record(cls, kind: str, recorded: Mapping[str, Any]) -> Self:
        """Return the configuration of a machine for an image with `recorded` in its record. ValueError when that is not enough."""
        known = {name: value for name, value in recorded.items() if name in cls.model_fields}
        return cls.model_validate(known | {"kind": kind})

    def with_values(self, **values: Any) -> Self:
        """Return the configuration with values from the command line. Unknown keys and values of None are ignored."""
        given = {name: value for name, value in values.items() if value is not None and name in type(self).model_fields}
        return self.model_copy(update=given)


KINDS: Plugins[Any] = Plugins(
    "baker.builders", "builder", {"libvirt": "baker.template.libvirt:LibvirtSpec", "ec2": "baker.template.ec2:Ec2Spec"}
)


def config_of(kind: str) -> type[BuilderConfig]:
    """Return the model of the builder `kind`: for a plugin without `Config`, the model of libvirt.

    UsageError when there is no such builder, or when its package is broken.
    """
    found = KINDS.get(kind)
    if kind not in KINDS.built_in:
        found = getattr(found, "Config", None) or KINDS.get(DEFAULT)
    if not isinstance(found, type) or not issubclass(found, BuilderConfig):
        raise UsageError(
            f"the Config of the builder {kind!r} is not a subclass of BuilderConfig", hint="see docs/plugins.md", code="plugin.broken"
        )
    return found


def files_of(config: BuilderConfig) -> dict[str, Path]:
    """The files on this host that the configuration names, by key."""
    values = ((name, getattr(config, name)) for name in type(config).model_fields)
    return {name: value for name, value in values if isinstance(value, Path)}


def anchored(config: BuilderConfig, directory: Path) -> BuilderConfig:
    """Return the configuration with absolute paths, because the part that runs machines does not know the template's directory."""
    return config.model_copy(update={name: directory / path.expanduser() for name, path in files_of(config).items()})
