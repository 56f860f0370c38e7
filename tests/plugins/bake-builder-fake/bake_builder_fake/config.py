"""The keys of `builder: {kind: fake}`, and what they mean for keys of steps, fingerprints and records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from baker.core.digests import file_digest
from baker.core.model import MachineSpec
from baker.template.builders import BuilderConfig

FLAVORS = {"small": (1, 1 << 29), "large": (8, 1 << 33)}  # name -> processors, bytes of memory


def known_flavor(name: str) -> str:
    if name not in FLAVORS:
        message = "there is no flavor {name}: want {known}"
        raise PydanticCustomError("fake.unknown-flavor", message, {"name": name, "known": " or ".join(FLAVORS)})
    return name


class FakeConfig(BuilderConfig):
    """A machine that does not exist."""

    sources: ClassVar[tuple[str, ...]] = ("file", "image")
    reaches_host: ClassVar[bool] = False

    kind: Literal["fake"] = Field(description="name of the builder")
    flavor: Annotated[str, AfterValidator(known_flavor)] = Field(description="how large it is", examples=["small"])
    zone: Literal["north", "south"] = Field("north", description="where it runs")
    first_boot: Path | None = Field(None, description="a file that it reads at its first boot")
    tags: Mapping[str, str] = Field(default_factory=dict, description="tags of the image")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.zone == "south" and self.flavor == "large":
            raise ValueError("zone south has no machines of flavor large")
        return self

    def describe(self) -> str:
        return f"fake, {self.flavor}, zone {self.zone}"

    def machine_spec(self) -> MachineSpec:
        cpus, memory = FLAVORS[self.flavor]
        return MachineSpec(cpus=cpus, memory=memory)

    def machine_key(self, machine: MachineSpec) -> Mapping[str, Any]:
        """A step can see how large the machine is and what it read at its first boot, and not where it is."""
        return {"flavor": self.flavor, "first_boot": file_digest(self.first_boot) if self.first_boot else None}

    def image_key(self) -> Mapping[str, Any]:
        return {"tags": dict(self.tags)}
