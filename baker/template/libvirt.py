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
MACHINE_TYPE = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"  # QEMU's names: q35, pc-i440fx-7.2, virt
LIBVIRT_URI = r"^[a-z][a-z0-9]*(\+[a-z][a-z0-9]*)?://[^\s/]*/\S*$"  # driver[+transport]://[user@][host][:port]/[path][?parameters]


def enough_memory(size: int) -> int:
    """Return `size`. ValueError when it is so small that its unit must be missing."""
    if size < LEAST_MEMORY:
        raise ValueError(f"{size} bytes are not enough memory for a machine: is the unit missing, as in 512MiB?")
    return size


class LibvirtSpec(BuilderConfig):
    """The virtual machine that the image is built on. A plugin without its own keys has the same."""

    kind: str = Field(DEFAULT, description="name of the builder")
    uri: str | None = Field(
        None, pattern=LIBVIRT_URI, description="URI of the libvirt connection, such as qemu:///system; default: a private one inside bake"
    )
    cpus: int = Field(2, ge=1, le=256, description="virtual CPUs")
    memory: Annotated[Size, AfterValidator(enough_memory)] = Field(1 << 30, description="amount of memory")
    disk_size: Size | None = Field(None, description="size of the disk; default: the size of the source")
    firmware: Firmware = Field("bios", description="firmware that boots the machine")
    accelerator: Accelerator = Field("auto", description="kvm, tcg (emulation), or auto: kvm if it works on this host, else tcg")
    machine_type: str = Field("q35", pattern=MACHINE_TYPE, description="QEMU machine type")
    clock: Literal["real", "epoch"] = Field(
        "real", description="time of the build machine's clock when it starts: the real time, or SOURCE_DATE_EPOCH"
    )
    network: Network = Field(
        "open",
        description="what the build machine may reach. open: everything; report: everything, and connections that bypass "
        "bake's proxy are recorded; closed: only the proxy",
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
        """The accelerator is not part of the key: it changes how fast a step runs, but not what it does."""
        key = {name: getattr(machine, name) for name in ("cpus", "memory", "disk_size", "firmware", "machine_type")}
        unusual = {
            "network": machine.network,
            "clock": machine.clock,
        }  # only where they differ from the defaults, because older keys lack them
        return key | {name: value for name, value in unusual.items() if value not in ("open", None)}

    def to_record(self) -> Mapping[str, Any]:
        return asdict(self.machine_spec())

    @classmethod
    def from_record(cls, kind: str, recorded: Mapping[str, Any]) -> Self:
        """Return the defaults: the caller takes the MachineSpec of an image's machine from the record."""
        return cls(kind=kind)
