"""What a builder says about itself to templates, plans and records: the model of its keys below `builder`.

A builder has two halves under one name. This half is a pydantic model, which costs no library to load; the other half runs machines
(baker/machines). The built-in models are in libvirt.py and ec2.py beside this file. A plugin has both halves in one class of the
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
    """Base of the models of builders. A subclass has the builder's keys, and overrides what is different for its machines.

    A value of type Path is a file on this host: bake reports one that is missing, and makes it absolute.
    """

    sources: ClassVar[tuple[str, ...]] = ("debootstrap", "file", "url", "image")  # what its machines can start from: disks of this host
    publishes: ClassVar[bool] = False  # its images are where its machines run, and not disks on this host: see machines.base.Publisher
    reaches_host: ClassVar[bool] = True  # its machines can reach a port of this host, so downloads go through bake's proxy

    kind: str

    def describe(self) -> str:
        """The machine in a few words, for `bake plan`."""
        return self.kind

    def machine_spec(self) -> MachineSpec:
        """The machine, as far as bake itself has to know it."""
        return MachineSpec()

    def starts_at_epoch(self) -> bool:
        """Whether the machine's clock starts at SOURCE_DATE_EPOCH instead of the real time."""
        return False

    def machine_key(self, machine: MachineSpec) -> Mapping[str, Any]:
        """What a step can see of the machine: a part of the key of every step. `machine`: with the clock that the plan gives it.

        By default that is every key, files by their content, so that no change goes unnoticed. JSON values only.
        """
        key = self.model_dump(mode="json", exclude={"kind"})
        key |= {name: file_digest(path) for name, path in files_of(self).items()}
        return key if machine.clock is None else key | {"clock": machine.clock}

    def image_key(self) -> Mapping[str, Any]:
        """What the image is besides its content, such as names and permissions where it is published: a part of its fingerprint."""
        return {}

    def to_record(self) -> Mapping[str, Any]:
        """What the record of a build says of the machine, as JSON values. Secret values are replaced in it later.

        Entries that are called as fields of MachineSpec say which machine `bake run` and `bake shell` start of the image.
        """
        return self.model_dump(mode="json")

    @classmethod
    def from_record(cls, kind: str, recorded: Mapping[str, Any]) -> Self:
        """The configuration of a machine for an image whose record has `recorded`. ValueError when it does not say enough."""
        known = {name: value for name, value in recorded.items() if name in cls.model_fields}
        return cls.model_validate(known | {"kind": kind})

    def with_values(self, **values: Any) -> Self:
        """The configuration with values from the command line, where it has such keys and the value is not None."""
        given = {name: value for name, value in values.items() if value is not None and name in type(self).model_fields}
        return self.model_copy(update=given)


KINDS: Plugins[Any] = Plugins(
    "baker.builders", "builder", {"libvirt": "baker.template.libvirt:LibvirtSpec", "ec2": "baker.template.ec2:Ec2Spec"}
)


def config_of(kind: str) -> type[BuilderConfig]:
    """The model of the builder `kind`; of a plugin without `Config` that of libvirt.

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
    """The files of this host that the configuration names, by key."""
    values = ((name, getattr(config, name)) for name in type(config).model_fields)
    return {name: value for name, value in values if isinstance(value, Path)}


def anchored(config: BuilderConfig, directory: Path) -> BuilderConfig:
    """The configuration with absolute paths: what runs machines does not know the template's directory."""
    return config.model_copy(update={name: directory / path.expanduser() for name, path in files_of(config).items()})
