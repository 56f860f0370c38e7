"""What all models of the template language are made of."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Frozen(BaseModel):
    """Base of all models: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=(), defer_build=True)


def one_or_more(value: object) -> object:
    """A list may be written as its only element."""
    return [value] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(one_or_more, json_schema_input_type=str | list[str])]
Paths = Annotated[tuple[Path, ...], BeforeValidator(one_or_more, json_schema_input_type=str | list[str])]
