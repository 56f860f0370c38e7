"""Mask secrets of several lines in text that arrives line by line.

A long line of such a secret is masked wherever it occurs. A short line ("}", "1234") occurs in unrelated text, too, so it is masked only
next to the line before or after it: two consecutive lines that are consecutive in a secret are considered that secret.
"""

from __future__ import annotations

from collections.abc import Iterable

MASK = "***"
LONG = 8  # characters of a line that is masked by itself


class SecretLines:
    """Masks the lines of secrets in one stream. It holds a line back until the next line decides whether it is part of a secret."""

    def __init__(self, values: Iterable[str]) -> None:
        split = [tuple(line.strip() for line in value.splitlines() if line.strip()) for value in values]
        self._secrets = [lines for lines in split if len(lines) > 1]
        self._at: set[tuple[tuple[str, ...], int]] = set()  # (lines of a secret, number of the line that the last line of text may be)
        self._held: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def feed(self, line: str) -> list[str]:
        """Add a line. Returns the lines that are decided now, masked, in order."""
        text = line.strip()
        if not text:
            return self._pass(line)
        continued = {(lines, end + 1) for lines, end in self._at if end < len(lines) and _is_at_an_end(text, lines[end])}
        if continued:
            before = [_hide(held, {lines[end - 2] for lines, end in continued}) for held in self._held]
            self._held, self._at = [], continued | self._matches(text)
            return [*before, _hide(line, {lines[end - 1] for lines, end in continued})]
        released, self._held = self._held, []
        self._at = self._matches(text)
        long = {lines[end - 1] for lines, end in self._at if len(lines[end - 1]) >= LONG}
        if self._at and not long:
            self._held = [line]
            return released
        return [*released, _hide(line, long)]

    def flush(self) -> list[str]:
        """The lines that were held back, at the end of the stream."""
        released, self._held, self._at = self._held, [], set()
        return released

    def _pass(self, line: str) -> list[str]:
        """Pass an empty line on in its place: after the lines that are held back."""
        if self._held:
            self._held.append(line)
            return []
        return [line]

    def _matches(self, text: str) -> set[tuple[tuple[str, ...], int]]:
        """The lines of secrets that this line may be. A line of punctuation only, such as a bracket, must be a secret's first line."""
        return {
            (lines, number)
            for lines in self._secrets
            for number, part in enumerate(lines, start=1)
            if (number == 1 or any(map(str.isalnum, part))) and (_is_at_an_end(text, part) or (len(part) >= LONG and part in text))
        }


def _is_at_an_end(text: str, part: str) -> bool:
    """Whether `text` begins or ends with a line of a secret: other text may be before its first line and after its last one."""
    return text.endswith(part) or text.startswith(part)


def _hide(line: str, parts: Iterable[str]) -> str:
    for part in sorted(parts, key=len, reverse=True):
        place = line.rfind(part) if line.rstrip().endswith(part) else line.find(part)
        if place >= 0:
            return line[:place] + MASK + line[place + len(part) :]
    return line
