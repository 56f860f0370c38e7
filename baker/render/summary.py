"""How a build ended, in a few lines: what came out, or what went wrong and where to read more."""

from __future__ import annotations

from baker.core import events
from baker.render.state import BuildState
from baker.render.terminal import Terminal
from baker.render.text import clean, cut, duration, fields, plural, size

STAGE_NAMES_SHOWN = 10
SHOWN_TESTS = 8
TEST_LINES = 6


def summary(state: BuildState, terminal: Terminal) -> list[str]:
    """The lines at the end of a build that has finished."""
    end = state.finished
    if end is None:
        return []
    if end.status in ("failed", "interrupted"):
        return failure(state, end, terminal)
    if end.status == "stopped":
        return stopped(state, end, terminal)
    if end.status == "tried":
        tick = terminal.paint(terminal.glyphs.ok, "green", "bold")
        return [f"{tick} {terminal.paint(f'{end.name} {end.version}', 'bold')} done in {duration(end.seconds)}, nothing of it is kept"]
    return success(state, end, terminal)


def success(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The image, how long what took, and the next command to type."""
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
    """There is a layer and no image, as asked for."""
    paint, done = terminal.paint, max(state.done, default=0)
    title = f"{terminal.paint(terminal.glyphs.ok, 'green', 'bold')} {paint(f'{end.name} {end.version}', 'bold')}"
    return [
        f"{title} stopped after step {done} as asked, {duration(end.seconds)}: a layer, no image",
        "next    " + paint(f"bake shell --layer {end.name}@{done}", "cyan"),
    ]


def failure(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """What went wrong, the last lines printed, and where the whole log is."""
    paint, glyphs = terminal.paint, terminal.glyphs
    title = f"{end.name} {end.version}".strip()
    word = "interrupted" if end.status == "interrupted" else "failed"
    lines = [f"{paint(glyphs.bad, 'red', 'bold')} {paint(title, 'bold')} {paint(word, 'red')}{_where(state)} after {duration(end.seconds)}"]
    if end.status == "failed":
        lines += [f"  {clean(line)}" for line in end.error.splitlines()]
        lines += _broken_tests(state, terminal)
        lines += _last_lines(state, end, terminal)
    if end.logged:
        lines.append(f"  the whole log: {paint(f'bake logs {end.build}', 'cyan')}")
    return lines


def _where(state: BuildState) -> str:
    """The stage or the step that failed: ` in step 2/5 packages, exit code 100, 3 attempts`."""
    step = state.failed_step
    if step is None:
        return f" in {state.failed_stage}" if state.failed_stage else ""
    code = f", exit code {step.exit_code}" if step.exit_code is not None else ""
    tries = f", {plural(step.attempts, 'attempt')}" if step.attempts > 1 else ""
    return f" in step {step.index}/{max(len(state.steps), step.index)} {clean(step.step)}{code}{tries},"


def timings(seconds: dict[str, float]) -> list[str]:
    """ "provision 1m02s", longest first, without what took no time."""
    shown = sorted(((value, name) for name, value in seconds.items() if value >= 0.05), reverse=True)
    return [f"{name} {duration(value)}" for value, name in shown[:STAGE_NAMES_SHOWN]]


def _tests(state: BuildState, end: events.BuildFinished) -> str:
    passed = sum(test.outcome == "passed" for test in state.tests)
    if not end.verified:
        return "none passed: the image is not verified"
    return f"{passed} passed: the image is verified" if passed else "the image is verified"


def _wrapped(items: list[str], width: int | None, indent: int = 8) -> str:
    """The items joined by commas, broken into lines that leave `indent` cells free at the left."""
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
    for test in broken[:SHOWN_TESTS]:
        lines.append(f"  {terminal.paint(terminal.glyphs.bad, 'red')} {clean(test.name)}")
        lines += _quoted(test.message.splitlines()[-TEST_LINES:], terminal)
    if len(broken) > SHOWN_TESTS:
        lines.append(f"  and {len(broken) - SHOWN_TESTS} more")
    return lines


def _last_lines(state: BuildState, end: events.BuildFinished, terminal: Terminal) -> list[str]:
    """The console's last lines where the machine did not come up, else those of the step; none that the error tells already."""
    if state.broken_tests:
        return []
    if state.failed_step is not None:
        kept, what = list(state.tail), "last output"
    elif state.console:
        kept, what = list(state.console), "last lines of the console"
    else:
        kept, what = list(state.tail), "last output"
    shown = [line for line in kept if line.strip() and clean(line).strip() not in end.error]
    return [f"  {what}:", *_quoted(shown, terminal)] if shown else []


def _quoted(lines: list[str], terminal: Terminal) -> list[str]:
    bar = terminal.paint(terminal.glyphs.bar, "dim")
    limit = (terminal.width or 10_000) - 6
    return [f"    {bar} {cut(clean(line), limit, terminal.glyphs.ellipsis)}" for line in lines]
