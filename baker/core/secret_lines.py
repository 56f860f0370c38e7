"""Secrets of several lines, in text that comes line by line.

A long line of such a secret is masked wherever it stands. A short one ("}", "1234") would blank out unrelated text, so it is masked only
together with the line before or after it: two lines in a row that follow each other in a secret are that secret.
"""

from __future__ import annotations

from collections.abc import Iterable

MASK = "***"
LONG = 8  # characters of a line that is masked by itself


class SecretLines:
    """One stream of lines without the lines of secrets. It holds a line back while the next one decides whether that is part of one."""

    def __init__(self, values: Iterable[str]) -> None:
        split = [tuple(line.strip() for line in value.splitlines() if line.strip()) for value in values]
        self._secrets = [lines for lines in split if len(lines) > 1]
        self._at: set[tuple[tuple[str, ...], int]] = set()  # secrets whose lines up to there were the last ones
        self._held: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def feed(self, line: str) -> list[str]:
        """The lines that are decided with this one, in their order."""
        text = line.strip()
        if not text:
            return self._pass(line)
        going_on = {(lines, end + 1) for lines, end in self._at if end < len(lines) and _ends(text, lines[end])}
        if going_on:
            before = [_hide(held, {lines[end - 2] for lines, end in going_on}) for held in self._held]
            self._held, self._at = [], going_on | self._begun(text)
            return [*before, _hide(line, {lines[end - 1] for lines, end in going_on})]
        released, self._held = self._held, []
        self._at = self._begun(text)
        long = {lines[end - 1] for lines, end in self._at if len(lines[end - 1]) >= LONG}
        if self._at and not long:
            self._held = [line]
            return released
        return [*released, _hide(line, long)]

    def flush(self) -> list[str]:
        """What was held back: no line comes after it."""
        released, self._held, self._at = self._held, [], set()
        return released

    def _pass(self, line: str) -> list[str]:
        """An empty line: nothing to hide, in its place among the others."""
        if self._held:
            self._held.append(line)
            return []
        return [line]

    def _begun(self, text: str) -> set[tuple[tuple[str, ...], int]]:
        """The places in secrets where this line may stand. Signs alone, such as a bracket, begin a secret only as its first line."""
        return {
            (lines, number)
            for lines in self._secrets
            for number, part in enumerate(lines, start=1)
            if (number == 1 or any(map(str.isalnum, part))) and (_ends(text, part) or (len(part) >= LONG and part in text))
        }


def _ends(text: str, part: str) -> bool:
    """Whether a line is a part of a secret: with an indentation, something before its first line, or behind its last one."""
    return text.endswith(part) or text.startswith(part)


def _hide(line: str, parts: Iterable[str]) -> str:
    for part in sorted(parts, key=len, reverse=True):
        place = line.rfind(part) if line.rstrip().endswith(part) else line.find(part)
        if place >= 0:
            return line[:place] + MASK + line[place + len(part) :]
    return line
