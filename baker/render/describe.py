"""Events as plain text, in one or more lines."""

from __future__ import annotations

from baker.core import events
from baker.core.events import Event
from baker.render.text import clean, duration, plural, short, size


def describe(event: Event) -> list[str]:
    """The lines for an event, without colours or special characters; none for output and progress, which callers show themselves."""
    match event:
        case events.BuildStarted():
            return [f"{event.name} {event.version}: build {event.build} of {event.template}, {plural(len(event.steps), 'step')}"]
        case events.StageStarted():
            return [f"{event.stage}{': ' + clean(event.detail) if event.detail else ''}"]
        case events.StageFinished():
            detail = f": {clean(event.detail)}" if event.detail else ""
            return [f"{event.stage} {'done' if event.ok else 'failed'} after {duration(event.seconds)}{detail}"]
        case events.StepStarted():
            return [f"step {event.index}/{event.total} {clean(event.step)} ({event.kind})"]
        case events.StepFinished():
            return [step_finished(event)]
        case events.Message():
            prefix = "" if event.level in ("info", "debug") else f"{event.level}: "
            return [prefix + clean(line) if number == 0 else "  " + clean(line) for number, line in enumerate(_all_lines(event))]
        case events.TestFinished():
            lines = [f"test {clean(event.name)} {event.outcome} ({duration(event.seconds)})"]
            return lines + ["  " + clean(line) for line in event.message.splitlines()] if event.outcome in ("failed", "error") else lines
        case events.BuildFinished():
            return build_finished(event)
    return []


def step_finished(event: events.StepFinished) -> str:
    """The line for the end of a step: "step 3 packages done after 12s", "... failed with exit code 100 after 3.1s, 3 attempts"."""
    if event.cached:
        return f"step {event.index} {clean(event.step)} cached"
    end = "done" if event.ok else "failed" + (f" with exit code {event.exit_code}" if event.exit_code is not None else "")
    tries = f", {plural(event.attempts, 'attempt')}" if event.attempts > 1 else ""
    return f"step {event.index} {clean(event.step)} {end} after {duration(event.seconds)}{tries}"


def build_finished(event: events.BuildFinished) -> list[str]:
    """The line for the end of a build, followed by the lines of its error."""
    title = f"{event.name} {event.version}".strip()
    if event.status in ("failed", "interrupted"):
        return [f"{title}: {event.status} after {duration(event.seconds)}", *("  " + clean(line) for line in event.error.splitlines())]
    if event.status == "stopped":
        return [f"{title}: stopped as requested after {duration(event.seconds)}"]
    if event.status == "tried":
        return [f"{title}: done after {duration(event.seconds)}, no image is kept"]
    verified = "verified" if event.verified else "not verified"
    word = "built" if event.status == "built" else "unchanged"
    return [f"{title}: {word} as {event.image}, {short(event.digest)}, {size(event.size)}, {verified}, {duration(event.seconds)}"]


def _all_lines(event: events.Message) -> list[str]:
    return [*event.text.splitlines(), *event.hint.splitlines()] or [""]
