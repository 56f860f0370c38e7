"""The summary of a finished build in a few lines: its result, or what failed and where the log is."""

from __future__ import annotations

from baker.core import events
from baker.render.state import BuildState
from baker.render.terminal import Terminal
from baker.render.text import clean, cut, duration, fields, plural, size

STAGE_NAMES_SHOWN = 10
TESTS_SHOWN = 8
TEST_LINES = 6


def summary(state: BuildState, terminal: Terminal) -> list[str]:
    """The lines of the summary; none while the build runs."""
    end = state.finished
    if end is None:
        return []
    if end.status in ("failed", "interrupted"):
        return failure(state, end, terminal)
    if end.status == "stopped":
        return stopped(state, end, terminal)
    if end.status == "tried":
        tick = terminal.paint(terminal.glyphs.ok, "green", "bold")
        return [f"{tick} {terminal.paint(f'{end.name} {end.version}', 'bold')} done in {duration(end.seconds)}, no image is kept"]
    return success(state, end, terminal)


def success(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The image, the times of the stages, and commands to run next."""
    paint, glyphs = terminal.paint, terminal.glyphs
    word = "already there, nothing to do" if end.status == "unchanged" else f"baked in {duration(end.seconds)}"
    lines = [f"{paint(glyphs.ok, 'green', 'bold')} {paint(f'{end.name} {end.version}', 'bold')} {word}"]
    lines += fields(
        [
            ("image", end.image),
            ("digest", end.digest),
            ("size", size(end.size) + " in the store"),
            ("tests", _tests(state, end)),
            ("times", _wrapped(timings(end.timings), terminal.width) if end.status == "built" else ""),
        ],
        indent="",
    )
    commands = [f"bake run {end.name}", f"bake shell {end.name}"]
    if terminal.width and 8 + len("  or  ".join(commands)) > terminal.width:
        commands = commands[:1]
    return [*lines, "next    " + "  or  ".join(paint(command, "cyan") for command in commands)]


def stopped(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The summary of a build that `--until` stopped: there is a layer, but no image."""
    paint, done = terminal.paint, max(state.done, default=0)
    title = f"{terminal.paint(terminal.glyphs.ok, 'green', 'bold')} {paint(f'{end.name} {end.version}', 'bold')}"
    return [
        f"{title} stopped after step {done} as requested, in {duration(end.seconds)}: a layer, no image",
        "next    " + paint(f"bake shell --layer {end.name}@{done}", "cyan"),
    ]


def failure(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The error, the last lines of output, and the command that shows the complete log."""
    paint, glyphs = terminal.paint, terminal.glyphs
    title = f"{end.name} {end.version}".strip()
    word = "interrupted" if end.status == "interrupted" else "failed"
    lines = [f"{paint(glyphs.bad, 'red', 'bold')} {paint(title, 'bold')} {paint(word, 'red')}{_place(state)} after {duration(end.seconds)}"]
    if end.status == "failed":
        lines += [f"  {clean(line)}" for line in end.error.splitlines()]
        lines += _broken_tests(state, terminal)
        lines += _last_lines(state, end, terminal)
    if end.logged:
        lines.append(f"  complete log: {paint(f'bake logs {end.build}', 'cyan')}")
    return lines


def _place(state: BuildState) -> str:
    """The step or stage that failed: " in step 2/5 packages, exit code 100, 3 attempts"."""
    step = state.failed_step
    if step is None:
        return f" in {state.failed_stage}" if state.failed_stage else ""
    ended = f", exit code {step.exit_code}" if step.exit_code is not None else ""
    tries = f", {plural(step.attempts, 'attempt')}" if step.attempts > 1 else ""
    return f" in step {step.index}/{max(len(state.steps), step.index)} {clean(step.step)}{ended}{tries},"


def timings(seconds: dict[str, float]) -> list[str]:
    """The times of stages, longest first, without those below 0.05 s: "provision 1m02s"."""
    shown = sorted(((value, name) for name, value in seconds.items() if value >= 0.05), reverse=True)
    return [f"{name} {duration(value)}" for value, name in shown[:STAGE_NAMES_SHOWN]]


def _tests(state: BuildState, end: events.BuildFinished) -> str:
    passed = sum(test.outcome == "passed" for test in state.tests)
    if not end.verified:
        return "none passed: the image is not verified"
    return f"{passed} passed: the image is verified" if passed else "the image is verified"


def _wrapped(items: list[str], width: int | None, indent: int = 8) -> str:
    """The items joined by commas, in lines of at most `width` - `indent` cells."""
    lines = [""]
    for index, item in enumerate(items):
        text = item + ("," if index + 1 < len(items) else "")
        if lines[-1] and width and len(lines[-1]) + 1 + len(text) > width - indent:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + text
    return "\n".join(lines)


def _broken_tests(state: BuildState, terminal: Terminal) -> list[str]:
    broken = state.broken_tests
    lines: list[str] = []
    for test in broken[:TESTS_SHOWN]:
        lines.append(f"  {terminal.paint(terminal.glyphs.bad, 'red')} {clean(test.name)}")
        lines += _quoted(test.message.splitlines()[-TEST_LINES:], terminal)
    if len(broken) > TESTS_SHOWN:
        lines.append(f"  and {len(broken) - TESTS_SHOWN} more")
    return lines


def _last_lines(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The last lines of the console when no step failed and there are any, otherwise those of output, without lines in the error."""
    if state.broken_tests:
        return []
    if state.failed_step is not None:
        tail, heading = list(state.tail), "last output"
    elif state.console:
        tail, heading = list(state.console), "last lines of the console"
    else:
        tail, heading = list(state.tail), "last output"
    shown = [line for line in tail if line.strip() and clean(line).strip() not in end.error]
    return [f"  {heading}:", *_quoted(shown, terminal)] if shown else []


def _quoted(lines: list[str], terminal: Terminal) -> list[str]:
    bar = terminal.paint(terminal.glyphs.bar, "dim")
    limit = (terminal.width or 10_000) - 6
    return [f"    {bar} {cut(clean(line), limit, terminal.glyphs.ellipsis)}" for line in lines]
