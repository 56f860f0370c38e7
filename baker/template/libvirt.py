"""The builder `libvirt` in a template."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from baker.core.model import Accelerator, Firmware, MachineSpec, Network
from baker.core.units import Size
from baker.render.text import size
from baker.template.builders import DEFAULT, BuilderConfig

LEAST_MEMORY = 1 << 20
MACHINE_TYPE = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"  # as QEMU names them: q35, pc-i440fx-7.2, virt
LIBVIRT_URI = r"^[a-z][a-z0-9]*(\+[a-z][a-z0-9]*)?://[^\s/]*/\S*$"  # driver[+transport]://[user@][host][:port]/[path][?parameters]


def enough_memory(size: int) -> int:
    """`size`, unless it is so little that a unit must be missing."""
    if size < LEAST_MEMORY:
        raise ValueError(f"{size} bytes are too little for a machine: is a unit missing, as in 512MiB?")
    return size


class LibvirtSpec(BuilderConfig):
    """The machine that the image is built on, of libvirt or of a plugin without keys of its own."""

    kind: str = Field(DEFAULT, description="which builder")
    uri: str | None = Field(
        None, pattern=LIBVIRT_URI, description="libvirt connection, such as qemu:///system; left out, a private one inside bake"
    )
    cpus: int = Field(2, ge=1, le=256, description="virtual CPUs")
    memory: Annotated[Size, AfterValidator(enough_memory)] = Field(1 << 30, description="memory")
    disk_size: Size | None = Field(None, description="size of the disk; left out, that of the source")
    firmware: Firmware = Field("bios", description="what boots the machine")
    accelerator: Accelerator = Field("auto", description="kvm, tcg (emulation), or whichever a probe finds to work")
    machine_type: str = Field("q35", pattern=MACHINE_TYPE, description="QEMU machine type")
    clock: Literal["real", "epoch"] = Field(
        "real", description="what the build machine takes for the time when it starts: the real time, or SOURCE_DATE_EPOCH"
    )
    network: Network = Field(
        "open",
        description="what the build machine may reach: open; report: what it reaches past bake's proxy is noted; closed: the proxy alone",
    )

    def describe(self) -> str:
        return f"{self.kind}, {self.cpus} cpus, {size(self.memory)} memory, {self.firmware}"

    def machine_spec(self) -> MachineSpec:
        return MachineSpec(
            cpus=self.cpus,
            memory=self.memory,
            disk_size=self.disk_size,
            firmware=self.firmware,
            accelerator=self.accelerator,
            machine_type=self.machine_type,
            network=self.network,
        )

    def starts_at_epoch(self) -> bool:
        return self.clock == "epoch"

    def machine_key(self, machine: MachineSpec) -> Mapping[str, Any]:
        """The accelerator is left out: it changes how fast a step is, and not what it does."""
        key = {name: getattr(machine, name) for name in ("cpus", "memory", "disk_size", "firmware", "machine_type")}
        unusual = {"network": machine.network, "clock": machine.clock}  # only where they are not the defaults: older keys lack them
        return key | {name: value for name, value in unusual.items() if value not in ("open", None)}

    def to_record(self) -> Mapping[str, Any]:
        return asdict(self.machine_spec())

    @classmethod
    def from_record(cls, kind: str, recorded: Mapping[str, Any]) -> Self:
        """Nothing of the record: whoever starts a machine of an image takes its MachineSpec from there."""
        return cls(kind=kind)
