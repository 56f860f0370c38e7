"""MaxResults and NextToken."""

from __future__ import annotations

from typing import Any

from tests.ec2.refusals import Refused


def page(found: list[Any], asked: Any) -> tuple[list[Any], str | None]:
    """The page that a moto response object's request wants, and the token of the next one."""
    token, size = asked._get_param("NextToken"), asked._get_param("MaxResults")
    if token is not None and not str(token).isdigit():
        raise Refused("InvalidNextToken", f"{token} is no token")
    start = int(token or 0)
    if size is None:
        return found[start:], None
    rest = found[start : start + int(size)]
    return rest, str(start + int(size)) if start + int(size) < len(found) else None
