"""Field types that the configurations of several kinds share. Invalid values raise ValueError, which pydantic reports with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?\Z")


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def _as_text(value: Any) -> Any:
    """Convert a YAML boolean or number in an environment, such as `DEBUG: true` or `PORT: 80`, to its text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _variable_name(name: str) -> str:
    if not VARIABLE_NAME.match(name):
        raise ValueError(f"{name!r} is not a name for an environment variable: use letters, digits and _, and no digit first")
    return name


def _no_null(value: str) -> str:
    if "\0" in value:
        raise ValueError("an environment variable cannot contain a null byte")
    return value


def _account(name: str) -> str:
    if not ACCOUNT_NAME.match(name):
        raise ValueError(f"{name!r} is not the name or number of a user or group")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} must be an absolute path in the guest: begin it with /")
    return path


def _mode(value: Any) -> int:
    """Parse permission bits from "0644", "644", "0o644" or YAML's own octal 0644 (which arrives as the number 420)."""
    if isinstance(value, str) and re.fullmatch(r"(0o)?[0-7]{3,5}", value):
        number = int(value.removeprefix("0o"), 8)
    elif isinstance(value, int) and not isinstance(value, bool):
        if value > 0o777 and re.fullmatch(r"[0-7]{3,4}", str(value)):
            raise ValueError(f"{value} is read as a decimal number; write it with quotes: '0{value}'")
        number = value
    else:
        raise ValueError(f"{value!r} is not a file mode; write it as '0644'")
    if not 0 <= number <= 0o7777:
        raise ValueError(f"{value!r} is not a file mode; write it as '0644'")
    return number


def octal(mode: int) -> str:
    """Four octal digits for permission bits, such as "0644"."""
    return f"{mode:04o}"


Env = dict[
    Annotated[str, AfterValidator(_variable_name)],
    Annotated[str, BeforeValidator(_as_text), AfterValidator(_no_null)],
]
Account = Annotated[str, AfterValidator(_account)]
GuestPath = Annotated[str, AfterValidator(_absolute)]
Mode = Annotated[
    int,
    BeforeValidator(_mode, json_schema_input_type=str | int),
    PlainSerializer(octal, return_type=str, when_used="json"),
    Field(description="File mode in octal, in quotes: '0644'."),
]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]
ExitCodes = Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], BeforeValidator(_as_tuple, json_schema_input_type=int | list[int])]
