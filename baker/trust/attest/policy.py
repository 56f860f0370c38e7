"""Policies: requirements for images in a short YAML file, which is parsed as strictly as a template.

signed_by: [ci, 3f2a9c...]   the provenance is signed by one of these keys (names or IDs)
level: 3                     the newest signed rebuild has reached at least this level (0 to 3, or L0 to L3)
no_revoked_ancestor: true    neither the image nor any of its ancestors is revoked
tests_passed: true           the image passed its tests before it was registered
base_not_older_than: 30d     the greatest age of its root image
reproducible: true           the template requests it, and the disk was normalized
no_committed: true           neither the image nor any of its ancestors was changed by hand
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError, TemplateError
from baker.core.units import parse_duration
from baker.template.yaml_document import Item, Problems, parse, quote, read, suggest
from baker.trust.attest import provenance
from baker.trust.attest.signing import TrustContext
from baker.trust.attest.verify import Check, signed, title


@dataclass(frozen=True)
class Policy:
    """The requirements. None, False and () require nothing."""

    signed_by: tuple[str, ...] = ()  # key IDs
    level: int | None = None
    no_revoked_ancestor: bool = False
    tests_passed: bool = False
    base_not_older_than: float | None = None  # seconds
    reproducible: bool = False
    no_committed: bool = False


def load(path: Path, trust: TrustContext) -> Policy:
    """Parse a policy file. TemplateError with every problem and its place."""
    problems = Problems()
    document = read(path, path.name, problems)
    item = parse(document, problems) if document else None
    values: dict[str, Any] = {}
    if item is not None and not isinstance(item.value, dict):
        problems.add(item.place, "a policy must be a mapping", "example: tests_passed: true", code="policy.not-a-mapping")
    elif item is not None:
        known = [each.name for each in fields(Policy)]
        for name, value in item.value.items():
            if name not in known:
                problems.add(item.keys[name], f"unknown key {quote(name)}", suggest(name, known), code="policy.unknown-key")
                continue
            try:
                values[name] = _value(name, value, trust, problems)
            except ValueError as error:
                problems.add(value.place, f"{name}: {error}", code="policy.value")
        if not item.value:
            problems.add(item.place, "the policy has no requirements", f"known keys: {', '.join(known)}", code="policy.empty")
    if problems:
        raise TemplateError(problems.list())
    return Policy(**values)


def _value(name: str, item: Item, trust: TrustContext, problems: Problems) -> Any:
    value = item.data()
    if name == "signed_by":
        listed = item.value if isinstance(item.value, list) else [item]
        if not listed:
            raise ValueError("name at least one key")
        return tuple(_keyid(each, trust, problems) for each in listed)
    if name == "level":
        match = re.fullmatch(r"L?([0-3])", str(value))
        if not match or isinstance(value, bool):
            raise ValueError(f"{quote(value)} is not a level: use 0, 1, 2 or 3")
        return int(match[1])
    if name == "base_not_older_than":
        return parse_duration(value)
    if not isinstance(value, bool):
        raise ValueError(f"{quote(value)} is not true or false")
    return value


def _keyid(item: Item, trust: TrustContext, problems: Problems) -> str:
    name = str(item.data())
    try:
        return trust.keys.public(name).keyid
    except NotFoundError:
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            hint = "bake keys list shows all keys, bake keys trust adds one"
            problems.add(item.place, f"no key {quote(name)} is trusted here", hint, code="key.not-trusted")
        return name


def judge(policy: Policy, image: ImageRecord, trust: TrustContext, *, at: str) -> list[Check]:
    """One check for each requirement of the policy. `at` is the present time (ISO 8601)."""
    line = trust.catalog.history(image)
    rules: Mapping[str, Callable[[], tuple[bool, str]]] = {
        "signed_by": lambda: _signed_by(policy, image, trust),
        "level": lambda: _level(policy, image, trust),
        "no_revoked_ancestor": lambda: _none_of(_revoked(line, trust, at), "neither the image nor an ancestor is revoked"),
        "tests_passed": lambda: _tests(image, trust),
        "base_not_older_than": lambda: _base_age(policy, line[-1], at),
        "reproducible": lambda: _reproducible(image, trust),
        "no_committed": lambda: _none_of(
            (f"{title(each)} was changed by hand" for each in line if each.origin == "committed"),
            "neither the image nor an ancestor was changed by hand",
        ),
    }
    found = []
    for name, rule in rules.items():
        if getattr(policy, name) not in ((), None, False):
            ok, detail = rule()
            found.append(Check("policy", title(image), ok, f"{name}: {detail}"))
    return found


def _signed_by(policy: Policy, image: ImageRecord, trust: TrustContext) -> tuple[bool, str]:
    keys = {keyid for each in signed(image, trust, provenance.PROVENANCE) for keyid in each.keyids}
    names = {key.keyid: key.name for key in trust.keys.list()}
    valid = [names.get(keyid, keyid[:16]) for keyid in policy.signed_by if keyid in keys]
    wanted = ", ".join(names.get(keyid, keyid[:16]) for keyid in policy.signed_by)
    return bool(valid), f"signed by {', '.join(valid)}" if valid else f"no valid signature by {wanted}"


def _level(policy: Policy, image: ImageRecord, trust: TrustContext) -> tuple[bool, str]:
    newest = list(signed(image, trust, provenance.REBUILD))[-1:]
    if not newest:
        return False, f"there is no signed rebuild, so L{policy.level} is not reached (bake rebuild --attest makes one)"
    level = newest[0].statement.get("predicate", {}).get("level", -1)
    assert policy.level is not None
    return level >= policy.level, f"the rebuild of {newest[0].attestation.at} reached L{level}, and L{policy.level} is required"


def _none_of(faults: Iterator[str], otherwise: str) -> tuple[bool, str]:
    found = list(faults)
    return not found, "; ".join(found) or otherwise


def _revoked(line: tuple[ImageRecord, ...], trust: TrustContext, at: str) -> Iterator[str]:
    for image in line:
        revocation = trust.catalog.revocations.of(image.id)
        if revocation and revocation.effective <= at:
            yield f"{title(image)} is revoked: {revocation.reason}"


def _tests(image: ImageRecord, trust: TrustContext) -> tuple[bool, str]:
    build = trust.catalog.build_of(image)
    passed = sum(test.outcome == "passed" for test in build.tests)
    if build.verify != "passed":
        return False, f"the status of its tests is {build.verify}"
    return image.verified, f"{passed} passed" if image.verified else "the tests of its build passed, but it is not on record as verified"


def _base_age(policy: Policy, root: ImageRecord, at: str) -> tuple[bool, str]:
    assert policy.base_not_older_than is not None
    seconds = (_time(at) - _time(root.created)).total_seconds()
    days = policy.base_not_older_than / 86400
    return seconds <= policy.base_not_older_than, f"{title(root)} is {seconds / 86400:.1f} days old, and at most {days:g} are allowed"


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _reproducible(image: ImageRecord, trust: TrustContext) -> tuple[bool, str]:
    reproduction = trust.catalog.build_of(image).reproduction
    if reproduction.get("refused"):
        return False, f"its disk was not normalized: {reproduction['refused']}"
    normalized = bool(reproduction.get("layout"))
    return normalized, "the disk was normalized" if normalized else "its template does not request it"
