"""The command line as a person meets it: what it prints where, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from baker.artifacts import codecs
from baker.catalog.catalog import Catalog
from baker.cli import completion
from baker.cli.main import VERBS, help_text, main
from baker.core.errors import BuildError, Interrupted, LockError, Problem
from baker.core.events import BuildFinished, BuildStarted
from baker.core.model import Forward
from baker.plan.requests import BuildOptions
from baker.upkeep.doctor import Finding
from baker.upkeep.sweep import Swept
from tests.support.fake_app import Cli, FakeMachine, Screen, a_build, a_result, an_image, fill
from tests.support.record_argv import recorded, recorder

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "home")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base, two versions of web on it, and an unverified image of its own; made once, copied for each test."""
    home = tmp_path_factory.mktemp("filled") / "home"
    base = an_image("debian-13", "13.1.0", 1, labels={})
    with Cli(home).baker as baker:
        fill(
            baker,
            base,
            an_image("web", "1.3.0", 2, parent=base.id),
            an_image("web", "1.4.0", 3, parent=base.id, labels={"team": "shop", "tier": "front"}),
            an_image("proxy", "0.1.0", 4, verified=False, labels={"org.example/tier.of": "a.b/c=d"}),
        )
    return home


@pytest.fixture
def shop(cli: Cli, filled: Path) -> Cli:
    """`bake` with the images of `filled`."""
    shutil.copytree(filled, cli.home)
    return cli


# --- the top ---------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_every_exit_code() -> None:
    text = help_text()
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", text, re.M)
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143):
        assert re.search(rf"\b{code}  ", text)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"], ["--help", "images"]])
def test_help_is_success(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "bake COMMAND --help" in capsys.readouterr().out


def test_no_command_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: bake" in capsys.readouterr().err


def test_a_mistyped_command_gets_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["biuld", "web.yaml"]) == 2
    assert "did you mean `bake build`?" in capsys.readouterr().err


def test_a_mistyped_option_gets_a_guess(cli: Cli) -> None:
    result = cli("images", "--jsno")
    assert result.code == 2
    assert "--jsno [usage.unknown-option]" in result.err
    assert "did you mean --json?" in result.err


def test_an_option_that_is_like_no_other_gets_no_guess(cli: Cli) -> None:
    result = cli("images", "--all")
    first, hint = result.err.splitlines()
    assert "--all" in first and first.endswith("[usage.unknown-option]")
    assert "`bake images --help`" in hint


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_examples(cli: Cli, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(verb, "--help").code == 0
    text = capsys.readouterr().out
    assert f"usage: bake {verb} [options]" in text
    assert f"  bake {verb}" in text.partition("examples:")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_the_documentation_has_every_command(verb: str) -> None:
    text = (DOCS / "commands.md").read_text()
    assert f"## bake {verb}\n" in text
    section = text.partition(f"## bake {verb}\n")[2].partition("\n## ")[0]
    assert re.search(rf"^\$ bake {verb}\b", section, re.M)


def test_the_documentation_has_every_exit_code() -> None:
    text = (DOCS / "commands.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143):
        assert f"| {code} |" in text


def test_options_stand_before_or_after_the_command(shop: Cli) -> None:
    assert shop("--quiet", "images").out == shop("images", "--quiet").out != ""


def test_home_says_where_things_are_kept(shop: Cli, tmp_path: Path) -> None:
    assert shop("--home", tmp_path / "other", "images", "--json").out == "[]\n"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_expected_error_is_two_lines_and_its_exit_code(shop: Cli) -> None:
    result = shop("show", "wbe")
    assert result.code == 5
    assert len(result.err.splitlines()) == 2
    assert all(fact in result.err for fact in ("'wbe'", "'web'", "[image.not-found]"))
    assert "Traceback" not in result.err
    assert result.out == ""


def test_an_error_is_an_object_for_programs(shop: Cli) -> None:
    result = shop("show", "wbe", "--json")
    error = json.loads(result.out)["error"]
    assert (result.code, error["exit_code"], error["code"]) == (5, 5, "image.not-found")
    assert "'wbe'" in error["message"]
    unknown = json.loads(shop("images", "--json", "--all").out)["error"]
    assert (unknown["code"], unknown["exit_code"]) == ("usage.unknown-option", 2)


def test_debug_shows_where_an_expected_error_came_from(shop: Cli) -> None:
    assert "Traceback" in shop("show", "wbe", "--debug").err


def test_a_bug_is_told_in_short_and_its_traceback_kept(cli: Cli) -> None:
    cli.script.error = RuntimeError("boom hunter2hunter2")
    result = cli("build", "web.yaml", "--var", "token=hunter2hunter2")
    assert result.code == 1
    assert "internal error: RuntimeError: boom ***" in result.err
    assert "Traceback" not in result.err
    kept = Path(re.search(r"the traceback is in (\S+);", result.err)[1])  # type: ignore[index]
    assert "Traceback" in kept.read_text()
    assert "hunter2" not in kept.read_text()


def test_a_kept_traceback_shows_no_value_of_a_file_and_no_default(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("token: from-a-file\nkeys: [in-a-list]\n")
    (tmp_path / "broken.yaml").write_text("token: {from-a-broken-one\n")
    (tmp_path / "web.yaml").write_text("name: web\nvariables:\n  token: {sensitive: true, default: by-default}\n")
    cli.script.error = RuntimeError("boom from-a-file in-a-list by-default {from-a-broken-one web")
    files = [f"--var-file={tmp_path / name}" for name in ("v.yaml", "broken.yaml", "gone.yaml")]
    result = cli("build", tmp_path / "web.yaml", *files)
    assert "internal error: RuntimeError: boom *** *** *** *** web" in result.err
    kept = Path(re.search(r"the traceback is in (\S+);", result.err)[1]).read_text()  # type: ignore[index]
    assert "boom *** *** *** *** web" in kept


def test_each_problem_of_a_lock_file_is_shown_with_its_code(cli: Cli) -> None:
    cli.script.error = LockError([Problem("web.lock.yaml", 0, 0, "there is no lock file", "bake lock web.yaml", code="lock.missing")])
    result = cli("build", "web.yaml", "--json")
    assert result.code == 8
    assert result.err.splitlines()[0].endswith("[lock.missing]") and "1 problem in web.lock.yaml" in result.err
    (problem,) = json.loads(result.out)["error"]["problems"]
    assert (problem["code"], problem["file"]) == ("lock.missing", "web.lock.yaml")


def test_notes_on_an_error_are_shown(cli: Cli) -> None:
    cli.script.error = BuildError("it failed")
    cli.script.error.add_note("and the overlay could not be removed")
    assert "    and the overlay could not be removed" in cli("build", "web.yaml").err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_has_its_own_exit_code(cli: Cli, number: int, code: int) -> None:
    cli.script.error = Interrupted(number)
    assert cli("build", "web.yaml").code == code


WAITS = """
import os, signal, sys, time
from baker.cli.signals import interruptible
from baker.core.errors import Interrupted
try:
    with interruptible(lambda text: print("said:", text, flush=True)):
        try:
            os.write(1, b"ready\\n")  # not print: a signal that comes while a stream is being written to cannot use that stream
            sys.stdin.readline()
        finally:
            os.write(1, b"cleaning\\n")
            sys.stdin.readline()
            os.write(1, b"cleaned\\n")
except Interrupted as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_runs_the_cleanup_and_a_second_one_does_not_disturb_it(number: signal.Signals, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.readline() == "cleaning\n"
        child.send_signal(number)
        assert "still cleaning up" in child.stdout.readline()
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "cleaned\n"
    assert child.returncode == code


def test_the_third_signal_ends_it_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for expected in ("ready", "cleaning", "said"):
            assert child.stdout.readline().startswith(expected)
            child.send_signal(signal.SIGINT)
        assert child.stdout.read() == ""
    assert child.returncode == 130


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    env = {**os.environ, "BAKE_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "baker", "images", "--json"], stdout=write, stderr=subprocess.PIPE, env=env, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_locale_without_utf8_shows_escapes(shop: Cli, tmp_path: Path) -> None:
    image = an_image("prüf", "1.0.0", 9, description="größe ✓")
    fill(shop.baker, image)
    env = {**os.environ, "BAKE_HOME": str(shop.home), "PYTHONIOENCODING": "ascii:strict"}
    result = subprocess.run([sys.executable, "-m", "baker", "show", image.id], capture_output=True, env=env, text=True, check=True)
    assert "gr\\xf6\\xdfe \\u2713" in result.stdout


# --- templates -------------------------------------------------------------------------------------------------------


def test_init_writes_a_template_that_is_valid(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", tmp_path / "hello")
    assert result.code == 0
    template = tmp_path / "hello" / "hello.yaml"
    assert f"wrote {template}" in result.out
    assert f"bake build {template}" in result.err
    checked = cli("validate", template)
    assert (checked.code, checked.out, checked.err) == (0, f"{template}: valid\n", "")


def test_init_writes_tests_that_python_understands(cli: Cli, tmp_path: Path) -> None:
    cli("init", tmp_path, "--name", "my-web")
    compile((tmp_path / "tests" / "test_my_web.py").read_text(), "test", "exec")


def test_init_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "index.html.j2").write_text("mine")
    result = cli("init", tmp_path, "--name", "web")
    assert result.code == 2
    assert "index.html.j2" in result.err and "[output.exists]" in result.err
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["index.html.j2"]


@pytest.mark.parametrize("name", ["Web", "1web", "a b", "../up", "-x", "a" * 64])
def test_init_refuses_names_that_no_image_may_have(cli: Cli, tmp_path: Path, name: str) -> None:
    result = cli("init", tmp_path, f"--name={name}")
    assert (result.code, "[usage.bad-name]" in result.err) == (2, True)


def test_validate_tells_every_problem_of_every_file_with_its_place(cli: Cli, tmp_path: Path) -> None:
    cli("init", tmp_path, "--name", "good")
    bad = tmp_path / "bad.yaml"
    bad.write_text("schema: 1\nname: bad\nversion: 1.0.0\nsuorce: {debootstrap: {suite: trixie}}\nbuilder: {memory: lots}\n")
    result = cli("validate", bad, tmp_path / "good.yaml")
    assert result.code == 2
    assert result.out == f"{tmp_path / 'good.yaml'}: valid\n"
    assert re.search(r"bad\.yaml:4:\d+: ", result.err)
    assert re.search(r"bad\.yaml:5:\d+: ", result.err)
    assert re.search(r"^bake: \d+ problems in .*bad\.yaml$", result.err, re.M)


def test_validate_json_has_the_same_problems(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("schema: 1\nname: bad\nversion: 1.0.0\nsuorce: {debootstrap: {suite: trixie}}\n")
    result = cli("validate", bad, "--json")
    assert (result.code, result.err) == (2, "")
    found = json.loads(result.out)
    assert found[0]["file"] == str(bad)
    assert found[0]["valid"] is False
    problem = next(each for each in found[0]["problems"] if each["line"] == 4)
    assert (problem["code"], "suorce" in problem["snippet"]) == ("template.unknown-key", True)
    assert set(problem) == {"file", "line", "column", "code", "message", "hint", "snippet"}


@pytest.mark.parametrize("pair", ["title", "=x"])
def test_a_variable_needs_a_name_and_a_value(cli: Cli, pair: str) -> None:
    result = cli("validate", "web.yaml", f"--var={pair}")
    assert result.code == 2
    assert "NAME=VALUE" in result.err and "[usage.bad-pair]" in result.err


def test_schema_is_a_json_schema(cli: Cli) -> None:
    schema = json.loads(cli("schema").out)
    assert "provisioners" in schema["properties"]


def test_plan_says_what_would_be_done_before_anything_is_there(cli: Cli, tmp_path: Path) -> None:
    cli("init", tmp_path, "--name", "web")
    result = cli("plan", tmp_path / "web.yaml")
    assert result.code == 0
    assert re.search(r"1 +packages +shell", result.out)
    assert re.search(r"bake build would .*source, .*2 steps, .*1 suite", result.out)
    plan = json.loads(cli("plan", tmp_path / "web.yaml", "--json").out)[0]
    assert plan["fingerprint"] is None
    assert [step["name"] for step in plan["steps"]] == ["packages", "page"]


# --- build -----------------------------------------------------------------------------------------------------------

STARTED = BuildStarted(build="b00000000001", template="/x/web.yaml", name="web", version="1.4.0", steps=("packages",), at=1000.0)
FINISHED = BuildFinished(
    build="b00000000001", name="web", status="built", seconds=61.0, image="a1b2c3d4e5f6", version="1.4.0",
    digest="sha256:" + "ab" * 32, size=5 << 20, verified=True, timings={"provision": 40.0}, at=1061.0,
)  # fmt: skip


def test_build_hands_every_choice_to_the_api(cli: Cli, tmp_path: Path) -> None:
    cli.script.results = [a_result()]
    result = cli(
        "build", "--var", "a=1", "web.yaml", "--var", "b=x=y", "--var-file", "v.yaml", "--only", "one,two", "--except", "three",
        "--on-error", "abort", "--skip-verify", "--force", "--keep-failed", "--pull", "--connect", "qemu:///session",
        "--accelerator", "tcg", "--parallel", "3", "--keep-going", "--no-cache", "--from", "2", "--until", "packages",
        "--locked", "other.yaml",
    )  # fmt: skip
    assert result.code == 0
    first, second = cli.script.requests
    assert (first.path, second.path) == ("web.yaml", "other.yaml")
    assert first.variables == {"a": "1", "b": "x=y"}
    assert first.var_files == (Path("v.yaml"),)
    assert (first.only, first.except_) == (("one", "two"), ("three",))
    assert first.options == second.options
    assert first.options == BuildOptions(
        on_error="abort", skip_verify=True, force=True, keep_failed=True, pull=True, uri="qemu:///session", accelerator="tcg",
        no_cache=True, first="2", last="packages", locked=True,
    )  # fmt: skip
    assert all(getattr(first.options, field.name) for field in fields(BuildOptions) if field.name not in ("clock", "replay"))
    assert cli.script.asked == {"parallel": 3, "fail_fast": False}


def test_build_quiet_prints_the_image_id_alone(cli: Cli) -> None:
    cli.script.events, cli.script.results = [STARTED, FINISHED], [a_result()]
    result = cli("build", "web.yaml", "--quiet")
    assert (result.code, result.out, result.err) == (0, "a1b2c3d4e5f6\n", "")


def test_build_json_is_nothing_but_json_lines(cli: Cli) -> None:
    cli.script.events, cli.script.results = [STARTED, FINISHED], [a_result()]
    lines = [json.loads(line) for line in cli("build", "web.yaml", "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["build_started", "build_finished"]
    assert lines[1]["digest"] == "sha256:" + "ab" * 32


def test_build_without_a_terminal_ends_with_the_image_and_the_next_command(cli: Cli) -> None:
    cli.script.events, cli.script.results = [STARTED, FINISHED], [a_result()]
    out = cli("build", "web.yaml").out
    for text in ("a1b2c3d4e5f6", "sha256:" + "ab" * 32, "5.0 MiB", "provision 40s", "bake run web", "bake shell web"):
        assert text in out
    assert "\x1b" not in out
    assert "\r" not in out


def test_a_failed_build_has_its_exit_code_and_says_what_is_left(cli: Cli) -> None:
    failed = BuildFinished(build="b00000000001", name="web", status="failed", seconds=3.0, error="it broke", version="1.4.0")
    cli.script.events = [STARTED, failed]
    cli.script.results = [
        a_result(status="failed", exit_code=4, error="it broke"),
        a_result("proxy", "skipped", 1, error="not started: web failed"),
    ]
    result = cli("build", "web.yaml")
    assert result.code == 4
    assert "it broke" in result.err
    assert "bake logs b00000000001" in result.err
    assert "web: cleaned up" in result.err
    assert "proxy 1.4.0: not started: web failed" in result.err


def test_a_kept_machine_is_told(cli: Cli) -> None:
    with cli.baker.ledger.open("b00000000001") as ledger:
        ledger.enter("domain", name="x")
        ledger.keep("for a look")
    cli.script.results = [a_result(status="failed", exit_code=3, error="x")]
    assert "bake sweep --kept" in cli("build", "web.yaml").err


def test_one_template_twice_is_refused(cli: Cli) -> None:
    result = cli("build", "web.yaml", "web.yaml")
    assert (result.code, "[usage.duplicate-template]" in result.err) == (2, True)


# --- looking ---------------------------------------------------------------------------------------------------------


def test_images_is_a_table_last_made_first(shop: Cli) -> None:
    lines = shop("images").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "ID", "CREATED", "SIZE", "VERIFIED", "PARENT"]
    assert [line.split()[:3] for line in lines[1:3]] == [["proxy", "0.1.0", "a00000000004"], ["web", "1.4.0", "a00000000003"]]
    assert lines[2].split()[-4:] == ["123", "MiB", "yes", "debian-13@13.1.0"]
    assert lines[1].split()[-2:] == ["no", "-"]


def test_images_json_has_what_scripts_need(shop: Cli) -> None:
    found = json.loads(shop("images", "--json").out)
    assert [image["name"] for image in found] == ["proxy", "web", "web", "debian-13"]
    assert {"name", "version", "id", "digest", "fingerprint", "parent", "created", "size"} <= set(found[0])
    assert found[1]["parent"] == found[3]["id"]


def test_no_images_is_an_empty_array_or_a_hint(cli: Cli) -> None:
    assert cli("images", "--json").out == "[]\n"
    result = cli("images")
    assert result.out == ""
    assert "bake build" in result.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--name", "web"], ["a00000000003", "a00000000002"]),
        (["--name", "*o*"], ["a00000000004"]),
        (["--label", "team"], ["a00000000003", "a00000000002"]),
        (["--label", "team=shop", "--label", "tier=front"], ["a00000000003"]),
        (["--label", "team=other"], []),
        (["--label", "org.example/tier.of=a.b/c=d"], ["a00000000004"]),
        (["--label", "org.example/tier.of", "--name", "prox?"], ["a00000000004"]),
        (["--label", "org.example"], []),
        (["--unverified"], ["a00000000004"]),
    ],
)
def test_images_filters(shop: Cli, flags: list[str], expected: list[str]) -> None:
    assert shop("images", "--quiet", *flags).out.split() == expected


def test_a_narrow_terminal_gets_a_narrow_table(shop: Cli) -> None:
    fill(shop.baker, an_image("an-image-with-quite-a-long-name-that-goes-on", "1.0.0-rc.1+build.2026", 8))
    lines = shop("images", tty=True, out=Screen(tty=True)).out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80
    assert any("…" in line for line in plain)


@pytest.mark.parametrize("columns", [40, 50, 60, 70])
@pytest.mark.parametrize("verb", ["images", "logs", "du", "plan"])
def test_no_line_of_a_table_wraps_in_a_narrow_terminal(shop: Cli, tmp_path: Path, verb: str, columns: int) -> None:
    fill(shop.baker, an_image("an-image-with-quite-a-long-name-that-goes-on", "1.0.0-rc.1+build.2026", 8))
    arguments: list[str | Path] = []
    if verb == "plan":
        shop("init", tmp_path / "p", "--name", "a-template-with-a-long-name")
        arguments = [tmp_path / "p" / "a-template-with-a-long-name.yaml"]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shop(verb, *arguments, tty=True, columns=columns).out.splitlines()]
    if verb == "plan":
        plain = plain[plain.index("") + 1 : -2]  # the steps; before and after them are sentences
    assert plain and max(map(len, plain)) <= columns, plain


def test_a_table_that_cannot_be_narrow_enough_stands_in_blocks(shop: Cli) -> None:
    lines = shop("images", "--name", "proxy", tty=True, columns=40).out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert plain[:3] == ["NAME      proxy", "VERSION   0.1.0", "ID        a00000000004"]


def test_show_tells_everything_but_secrets(shop: Cli) -> None:
    out = shop("show", "web").out
    for text in (
        "web 1.4.0", "a00000000003", "debian-13@13.1.0 (a00000000001)", "team=shop, tier=front", "/home/someone/web.yaml",
        "with uncommitted changes", "debian trixie (debootstrap)", "Hello", "(secret)", "packages", "1m01s", "test_web.py::test_nginx",
        "the probe's kernel did not finish under KVM", "someone@builder", "QEMU emulator version 7.2.22", "sha256:" + f"{3:064x}",
    ):  # fmt: skip
        assert text in out


def test_show_json_is_the_whole_record(shop: Cli) -> None:
    found = json.loads(shop("show", "debian-13", "--json").out)
    assert found["build"]["steps"][0]["key"] == "1" * 64
    assert found["children"] == ["a00000000003", "a00000000002"]


def test_show_template_is_the_template(shop: Cli) -> None:
    assert shop("show", "web", "--template").out == "schema: 1\nname: web\n"


def test_history_is_a_tree_with_the_root_first(shop: Cli) -> None:
    lines = shop("history", "web").out.splitlines()
    places = [next(i for i, line in enumerate(lines) if text in line) for text in ("debian trixie", "debian-13 13.1.0", "web 1.4.0")]
    assert places == sorted(places)
    assert lines[places[2]].startswith("    └── web 1.4.0")
    assert "built in 2m12s" in lines[places[2]]
    assert any(line.endswith("1. packages (shell) 1m01s") for line in lines)
    assert [entry["image"]["name"] for entry in json.loads(shop("history", "web", "--json").out)] == ["debian-13", "web"]


def test_history_without_an_image_shows_all(shop: Cli) -> None:
    lines = shop("history").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["proxy 0.1.0", "debian-13 13.1.0", "├── web 1.4.0", "└── web 1.3.0"]


def test_logs_of_a_build_and_of_an_image(shop: Cli) -> None:
    assert shop("logs", "b00000000003").out == shop("logs", "web").out == "log of web\n  | red\n"
    assert shop("logs", "web", "--console").out == "console of web\n"


def test_logs_of_a_build_that_failed(shop: Cli) -> None:
    baker = shop.baker
    digest = baker.store.add_bytes(codecs.pack_text("E: no such package\n"))
    record = a_build(an_image("new", number=7), status="failed", error="step packages failed\nmore", evidence={"log": digest})
    baker.catalog.register(record, None)
    assert shop("logs", "new").out == "E: no such package\n"
    latest = shop("logs").out.splitlines()
    assert latest[1].split()[:4] == ["b00000000007", "new", "1.4.0", "failed"]
    assert latest[1].endswith("step packages failed")


def test_a_log_that_there_is_not(shop: Cli) -> None:
    result = shop("logs", "web", "--junit")
    assert result.code == 5
    assert "b00000000003" in result.err and "[build.no-log]" in result.err


# --- using -----------------------------------------------------------------------------------------------------------


def test_run_says_where_the_machine_answers(shop: Cli) -> None:
    result = shop("run", "web", "-p", "8080:80", "-p", "5432")
    assert result.code == 0
    assert "port 80: http://127.0.0.1:8080/" in result.out
    assert "port 5432: 127.0.0.1:45432" in result.out
    assert "powered off" in result.err
    assert shop.script.asked["forwards"] == (Forward(80, 8080), Forward(5432, 0))


def test_ctrl_c_is_how_run_ends(shop: Cli) -> None:
    shop.script.machine = FakeMachine(error=Interrupted(signal.SIGINT))
    assert shop("run", "web").code == 0
    shop.script.machine = FakeMachine(error=Interrupted(signal.SIGTERM))
    assert shop("run", "web").code == 143


def test_run_has_the_exit_code_of_its_command(shop: Cli, tmp_path: Path) -> None:
    shop.script.ssh = recorder(tmp_path / "argv", 7)
    assert shop("run", "web", "--", "exit", "7").code == 7


def test_run_quotes_its_command_for_the_shell_over_there(shop: Cli, tmp_path: Path) -> None:
    shop.script.ssh = recorder(tmp_path / "argv")
    assert shop("run", "web", "--", "touch", "/srv/a b", "$HOME").code == 0
    (command,) = recorded(tmp_path / "argv")
    assert shlex.split(command) == ["touch", "/srv/a b", "$HOME"] and command != "touch /srv/a b $HOME"


@pytest.mark.parametrize("port", ["x", "0", "70000", "80:", ":80", "1:2:3", "-1"])
def test_what_is_no_port(shop: Cli, port: str) -> None:
    result = shop("run", "web", f"-p={port}")
    assert result.code == 2
    assert repr(port) in result.err and "[usage.bad-port]" in result.err


def test_the_machine_of_a_layer_cannot_be_changed(shop: Cli) -> None:
    result = shop("run", "--layer", "web@1", "--memory", "2GiB", "--user", "me")
    assert result.code == 2
    assert "--memory, --user [usage.conflicting-options]" in result.err


def test_memory_without_a_unit_is_told(shop: Cli) -> None:
    result = shop("run", "web", "--memory", "512")
    assert result.code == 2
    assert "512MiB" in result.err and "[usage.bad-size]" in result.err


def test_run_can_change_the_machine(shop: Cli) -> None:
    shop("run", "web", "--cpus", "1", "--memory", "512MiB", "--accelerator", "tcg", "--user", "debian")
    assert shop.script.asked["shape"] == {"cpus": 1, "memory": 512 << 20, "accelerator": "tcg"}
    assert shop.script.asked["username"] == "debian"


def test_shell_goes_in_by_ssh(shop: Cli, tmp_path: Path) -> None:
    shop.script.ssh = recorder(tmp_path / "argv")
    assert shop("shell", "web").code == 0
    assert recorded(tmp_path / "argv") == []


def test_a_serial_console_needs_a_terminal(shop: Cli) -> None:
    result = shop("shell", "web", "--serial")
    assert result.code == 2
    assert "[usage.needs-terminal]" in result.err


def test_export_names_its_file_and_overwrites_nothing(shop: Cli, tmp_path: Path) -> None:
    target = tmp_path / "web.vmdk"
    result = shop("export", "web", "--format", "vmdk", "-o", target)
    assert result.out == f"wrote {target} (vmdk, 2.0 KiB)\n"
    assert shop.script.asked["format"] == "vmdk"
    again = shop("export", "web", "--format", "vmdk", "-o", target)
    assert again.code == 2
    assert str(target) in again.err and "[output.exists]" in again.err
    assert json.loads(shop("export", "web", "-o", target, "--overwrite", "--json").out)["size"] == 2048


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_rm_removes_and_says_so(shop: Cli) -> None:
    assert shop("rm", "web@1.3.0").out == "removed web 1.3.0 (a00000000002, 123 MiB)\n"
    assert "a00000000002" not in shop("images", "--quiet").out


def test_rm_keeps_what_others_are_made_on(shop: Cli) -> None:
    result = shop("rm", "debian-13")
    assert result.code == 7
    assert "web@1.4.0" in result.err
    assert len(Catalog(shop.baker.home.catalog).images()) == 4


def test_rm_removes_nothing_when_one_of_several_must_stay(shop: Cli) -> None:
    result = shop("rm", "proxy", "web@1.3.0", "debian-13")
    assert (result.code, result.out) == (7, "")
    assert "web@1.4.0" in result.err
    assert len(Catalog(shop.baker.home.catalog).images()) == 4


def test_sweep_tells_each_thing_and_fails_when_one_stays(cli: Cli) -> None:
    assert "nothing to clean up" in cli("sweep").err
    cli.script.swept = [Swept("b1", "domain", "bake-b1"), Swept("b1", "directory", "/x", "Device or resource busy")]
    result = cli("sweep", "--kept")
    assert result.code == 1
    assert result.out == "removed domain bake-b1 of build b1\n"
    assert "Device or resource busy" in result.err
    assert cli.script.asked == {"kept": True, "dry_run": False}
    cli.script.swept = [Swept("b1", "domain", "bake-b1")]
    assert cli("sweep", "--dry-run").out == "would remove domain bake-b1 of build b1\n"


GOOD = Finding("qemu-img", True, True, "qemu-img version 7.2")
ADVICE = Finding("/dev/kvm", False, False, "not there: machines are emulated", "switch it on")
MISSING = Finding("ssh", False, True, "not installed", "apt-get install -y openssh-client")


@pytest.mark.parametrize(("findings", "code"), [([GOOD], 0), ([GOOD, ADVICE], 0), ([GOOD, ADVICE, MISSING], 6)])
def test_doctor_fails_only_for_what_building_needs(cli: Cli, findings: list[Finding], code: int) -> None:
    cli.script.findings = findings
    assert cli("doctor").code == code
    assert cli("doctor", "--json").code == code


def test_doctor_says_what_to_type(cli: Cli) -> None:
    cli.script.findings = [GOOD, ADVICE, MISSING]
    out = cli("doctor").out
    assert "fix: apt-get install -y openssh-client" in out
    assert out.splitlines()[-1].endswith("1 problem: ssh")
    assert "qemu-img version" not in cli("doctor", "--quiet").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(cli: Cli, shell: str) -> None:
    result = cli("completion", shell)
    assert result.code == 0
    for verb in VERBS:
        assert verb in result.out


def test_the_bash_completion_is_bash_and_completes(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "bake.bash"
    script.write_text(cli("completion", "bash").out)
    ask = f"""source {script}; COMP_WORDS=(bake ima); COMP_CWORD=1; COMP_LINE='bake ima'; COMP_POINT=8
        _shtab_bake; echo "${{COMPREPLY[@]}}" """
    result = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "images", result.stderr
    assert completion.NAMES in script.read_text()
