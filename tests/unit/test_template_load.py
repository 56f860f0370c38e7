"""Templates as users write them: what loads, and what each mistake is answered."""

from __future__ import annotations

import ast
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from template_cases import CASES, load_case

from baker.core.errors import Problem, TemplateError, UsageError
from baker.template.load import load
from baker.template.model import DebootstrapSource, FileSource, ImageSource, Template, UrlSource

INVALID = sorted((CASES / "invalid").glob("*.yaml"))
ROOT = CASES.parents[1]
VALID = sorted((CASES / "valid").glob("*.yaml"))
HEAD = "schema: 1\nname: web\nversion: 1.4.0\nsource: {debootstrap: trixie}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def one(path: Path, **options: object) -> Template:
    options.setdefault("env", {})
    (template,) = load(path, **options)  # type: ignore[arg-type]
    return template


def problems_of(path: Path, **options: object) -> tuple[Problem, ...]:
    options.setdefault("env", {})
    with pytest.raises(TemplateError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    return caught.value.problems


def place_and_code(problem: Problem) -> str:
    return f"{problem.file}:{problem.line}:{problem.column} {problem.code}"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_every_mistake_has_its_answer(path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        load_case(path)
    expected = expectations(path.with_suffix(".txt").read_text())
    assert [f"{each.file}:{each.line}:{each.column} {each.code}" for each in caught.value.problems] == [place for place, _ in expected]
    for problem, (place, facts) in zip(caught.value.problems, expected, strict=True):
        missing = [fact for fact in facts if fact not in f"{problem.message}\n{problem.hint}"]
        assert not missing, f"{place}: {missing} not in {problem.message!r}, {problem.hint!r}"


def expectations(text: str) -> list[tuple[str, list[str]]]:
    """What a case's .txt file asks for: a line `FILE:LINE:COLUMN CODE` for each problem, then its facts, indented."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("    "):
            found[-1][1].append(line.removeprefix("    "))
        else:
            found.append((line, []))
    return found


def test_every_problem_of_a_template_has_a_code_of_its_own() -> None:
    assert [path.name for path in INVALID if "template.invalid" in path.with_suffix(".txt").read_text()] == []
    adds = [
        (path.name, node.lineno, [keyword.arg for keyword in node.keywords])
        for path in (ROOT / "baker/template").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("problems.add", "self.problems.add")
    ]
    assert len(adds) > 50
    assert [(name, line) for name, line, keywords in adds if "code" not in keywords] == []


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_templates_load(path: Path) -> None:
    templates = load_case(path)
    assert templates
    assert all(template.path == path for template in templates)


def test_enough_cases() -> None:
    assert len(INVALID) >= 45


def test_no_answer_shows_a_secret() -> None:
    for path in INVALID:
        with pytest.raises(TemplateError) as caught:
            load_case(path)
        assert "sup3rs3cret" not in str(caught.value), path.name
        assert "sup3rs3cret" not in "".join(repr(problem) for problem in caught.value.problems), path.name


def test_everything_arrives_where_it_belongs() -> None:
    (template,) = load_case(CASES / "valid/everything.yaml")
    assert (template.name, template.version, template.description) == ("web", "1.4.0-rc.1", "nginx in front of the shop, web 1.4.0-rc.1")
    assert template.labels == {"team": "shop", "stage": "prod"}
    assert template.environment == {"STAGE": "prod"}
    assert isinstance(template.source, FileSource)
    assert template.source.format == "raw"
    assert (template.builder.cpus, template.builder.memory, template.builder.disk_size) == (8, 512 << 20, 8 << 30)
    assert (template.communicator.ssh_timeout, template.communicator.shutdown_timeout) == (300, 90)
    assert (template.on_error, template.reproducible) == ("abort", True)
    (export,) = template.post_processors
    assert (export.format, export.compress, export.path) == ("qcow2", "zstd", Path("out/web.qcow2"))
    first = template.provisioners[0]
    assert (first.name, first.kind, first.origin) == ("packages", "shell", "everything.yaml:20:5")
    assert (first.timeout, first.retries, first.pause_before, first.on_error, first.cache.max_age) == (5400, 2, 0.25, "ask", 86400)
    assert template.provisioners[1].cache.enabled is False
    assert template.provisioners[1].name == "shell 2"


def test_bundles_and_includes_are_taken_apart_in_order() -> None:
    (template,) = load_case(CASES / "valid/everything.yaml")
    assert [(step.name, step.bundle) for step in template.provisioners[3:]] == [
        ("shell 4", ""), ("quick", ""), ("greet", "greeter"), ("shell 7", "inner"), ("greet", "greeter"), ("shell 9", "inner"),
    ]  # fmt: skip
    assert [step.timeout for step in template.provisioners[3:5]] == [30, 5], "an include's timeout holds where a step has none"
    assert template.provisioners[5].base_dir == CASES / "valid/provisioners/greeter"
    assert template.files == (
        CASES / "valid/parts/common.yaml",
        CASES / "valid/provisioners/greeter/provisioner.yaml",
        CASES / "valid/provisioners/greeter/provisioners/inner/provisioner.yaml",
    )


def test_the_tests_of_bundles_run_with_their_parameters_and_without_secrets() -> None:
    (template,) = load_case(CASES / "valid/everything.yaml")
    assert [(verify.bundle, [str(path) for path in verify.testinfra]) for verify in template.verify] == [
        ("", ["parts/test_web.py"]), ("inner", ["test_a.py"]), ("greeter", ["test_greeter.py"]), ("inner", ["test_a.py"]),
        ("greeter", ["test_greeter.py"]),
    ]  # fmt: skip
    assert template.verify[1].vars == {"loud": True, "extra": 1}
    assert template.verify[2].vars == {"who": "you", "port": 80, "nickname": None}
    assert all((verify.base_dir / path).is_file() for verify in template.verify for path in verify.testinfra)


def test_secrets_are_known_and_not_shown() -> None:
    (template,) = load_case(CASES / "valid/everything.yaml")
    assert template.secrets.values["deploy_token"] == "tok_abcdef"
    assert "abc123xyz" in template.secrets.values.values(), "a bundle's sensitive parameter is a secret too"
    assert "tok_abcdef" not in repr(template)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{debootstrap: trixie}", DebootstrapSource),
        ("{image: debian-13@^13.1}", ImageSource),
        ("{image: {image: debian-13}}", ImageSource),
        ("{url: {url: 'https://example.org/a.raw', checksum: 'sha256:" + "0" * 64 + "'}}", UrlSource),
        ("{file: web.yaml}", FileSource),
    ],
)
def test_sources(tmp_path: Path, text: str, kind: type) -> None:
    path = write(tmp_path / "web.yaml", f"schema: 1\nname: web\nversion: 1.4.0\nsource: {text}\n")
    assert isinstance(one(path).source, kind)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yaml", "[" * 10_000_000)
    started = time.monotonic()
    (problem,) = problems_of(path)
    assert place_and_code(problem) == f"{path}:0:0 template.file-too-large"
    assert "10.0 MB" in problem.message
    assert "1 MiB" in problem.message
    assert time.monotonic() - started < 1


def test_a_file_just_small_enough_gets_an_answer_soon(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yaml", HEAD + "labels: " + "[" * 1_000_000)
    started = time.monotonic()
    assert [each.code for each in problems_of(path)] == ["template.too-deep"]
    assert time.monotonic() - started < 5


def test_no_such_file_and_a_directory(tmp_path: Path) -> None:
    missing = problems_of(tmp_path / "web.yaml")
    assert [place_and_code(each) for each in missing] == [f"{tmp_path}/web.yaml:0:0 template.missing-file"]
    assert [place_and_code(each) for each in problems_of(tmp_path)] == [f"{tmp_path}:0:0 template.not-a-file"]


def test_only_and_except_choose_images() -> None:
    path = CASES / "valid/matrix.yaml"
    names = lambda **options: [template.name for template in load(path, env={}, **options)]  # noqa: E731
    assert names() == ["web-trixie-plain", "web-trixie-docker", "web-bookworm-plain", "web-sid-plain"]
    assert names(only=["web-trixie-*"]) == ["web-trixie-plain", "web-trixie-docker"]
    assert names(only=["release=trixie"], except_=["flavour=docker"]) == ["web-trixie-plain"]
    with pytest.raises(UsageError) as caught:
        load(path, env={}, only=["nothing"])
    assert caught.value.code == "usage.no-image-selected"
    assert "web-sid-plain" in caught.value.hint


def test_steps_of_a_matrix_are_chosen_by_name_and_axis() -> None:
    templates = load(CASES / "valid/matrix.yaml", env={})
    assert [len(template.provisioners) for template in templates] == [1, 2, 1, 0]
    assert templates[1].matrix == {"release": "trixie", "flavour": "docker"}
    assert isinstance(templates[2].source, DebootstrapSource)
    assert templates[2].source.suite == "bookworm"


def test_overrides_replace_what_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yaml", HEAD + "builder: {cpus: 4, accelerator: kvm}\n")
    template = one(path, overrides={"builder.accelerator": "tcg", "on_error": "abort", "communicator.ssh_timeout": "1m"})
    assert (template.builder.accelerator, template.builder.cpus, template.on_error) == ("tcg", 4, "abort")
    assert template.communicator.ssh_timeout == 60
    (problem,) = problems_of(path, overrides={"builder.accelerator": "warp"})
    assert place_and_code(problem) == "builder.accelerator:0:0 template.not-a-choice"
    assert "kvm" in problem.message


def repository(directory: Path) -> str:
    """A git repository with one commit of everything in `directory`; the commit's id."""
    git = ["git", "-C", str(directory), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_git_facts(tmp_path: Path) -> None:
    text = (
        HEAD + 'labels: {commit: "${{ git.commit }}", short: "${{ git.short }}", branch: "${{ git.branch }}", dirty: "${{ git.dirty }}!"}\n'
    )
    path = write(tmp_path / "templates/web.yaml", text)
    commit = repository(tmp_path)
    template = one(path)
    assert template.labels == {"commit": commit, "short": commit[:8], "branch": "main", "dirty": "false!"}
    assert (template.git_commit, template.git_dirty) == (commit, False)
    write(tmp_path / "other.txt", "new")
    again = one(path)
    assert again.git_dirty
    assert replace(again, name="copy").git_commit == commit


def test_git_facts_outside_a_repository(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yaml", HEAD + "labels: {commit: '${{ git.commit }}'}\n")
    (problem,) = problems_of(path)
    assert place_and_code(problem) == f"{path}:5:19 template.no-git-value"
    assert "git.commit" in problem.message
    plain = one(write(tmp_path / "plain.yaml", HEAD))
    assert (plain.git_commit, plain.git_dirty) == ("", False)


def test_bundles_are_found_above_up_to_the_repository(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project / "provisioners/hello/provisioner.yaml", "schema: 1\nname: hello\nprovisioners:\n  - shell: echo hello\n")
    write(tmp_path / "provisioners/outside/provisioner.yaml", "schema: 1\nname: outside\nprovisioners: []\n")
    path = write(project / "templates/deep/web.yaml", HEAD + "provisioners:\n  - uses: hello\n")
    repository(project)
    assert [step.bundle for step in one(path).provisioners] == ["hello"]
    write(path, HEAD + "provisioners:\n  - uses: outside\n")
    (problem,) = problems_of(path)
    assert problem.code == "template.no-such-bundle"
    assert '"outside"' in problem.message
    assert one(path, search=[tmp_path / "provisioners"]).provisioners == ()


def test_problems_name_files_as_the_user_typed_them(tmp_path: Path) -> None:
    write(tmp_path / "parts/steps.yaml", "- shel: x\n")
    path = write(tmp_path / "web.yaml", HEAD + "provisioners:\n  - include: parts/steps.yaml\n")
    assert place_and_code(problems_of(path)[0]) == f"{tmp_path}/parts/steps.yaml:1:3 plugin.unknown"


def test_a_problem_is_reported_once_for_a_whole_matrix(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yaml", HEAD + "matrix: {a: [1, 2, 3]}\nbuilder: {cpus: many}\n")
    assert ["builder.cpus" in each.message for each in problems_of(path)].count(True) == 1


def test_many_aliases_cost_nothing() -> None:
    started = time.monotonic()
    with pytest.raises(TemplateError):
        load_case(CASES / "invalid/billion-laughs.yaml")
    assert time.monotonic() - started < 2


def test_a_template_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(HEAD,), daemon=True)
    writer.start()
    assert one(pipe).name == "web"
    writer.join(5)


def test_a_file_without_end_is_refused() -> None:
    assert [place_and_code(each) for each in problems_of(Path("/dev/zero"))] == ["/dev/zero:0:0 template.file-too-large"]
