"""Several builds: the order, how many at once, what a failure stops."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from baker.core.errors import UsageError
from baker.plan.graph import BuildNode, Ended, find_template, order
from baker.scheduler.run import run
from baker.template.libvirt import LibvirtSpec
from baker.template.model import CommunicatorSpec, FileSource, ImageSource, Template


def template(name: str, path: Path = Path("/t/x.yaml"), source: ImageSource | FileSource | None = None) -> Template:
    return Template(
        name=name, version="1.0.0", description="", labels={}, variables={}, source=source or FileSource(path=Path("x.qcow2")),
        builder=LibvirtSpec(), communicator=CommunicatorSpec(), provisioners=(), verify=(), on_error="cleanup", post_processors=(),
        reproducible=False, path=path, text="", files=(),
    )  # fmt: skip


def node(name: str, *needs: str) -> BuildNode:
    return BuildNode(name, template(name), {}, frozenset(needs))


class FakePool:
    """Ends builds in the order in which they began, as told by `codes`; remembers how many ran at once."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.begun: list[str] = []
        self.open: list[tuple[str, Future[Ended]]] = []
        self.most = 0

    def start(self, wanted: BuildNode) -> Future[Ended]:
        self.begun.append(wanted.key)
        future: Future[Ended] = Future()
        future.set_result(Ended(wanted.key, self.codes.get(wanted.key, 0)))
        return future


def here(pool: FakePool):
    def build(wanted: BuildNode) -> Ended:
        pool.begun.append(f"{wanted.key} (here)")
        return Ended(wanted.key, pool.codes.get(wanted.key, 0))

    return build


def test_a_base_comes_before_what_needs_it_and_the_last_runs_here() -> None:
    pool = FakePool()
    ended = run([node("web", "base"), node("base")], here(pool), pool, parallel=2, fail_fast=True)
    assert pool.begun == ["base", "web (here)"]
    assert [end.key for end in ended] == ["web", "base"]
    assert all(end.exit_code == 0 for end in ended)


def test_a_single_build_runs_here() -> None:
    pool = FakePool()
    run([node("web")], here(pool), pool, parallel=4, fail_fast=True)
    assert pool.begun == ["web (here)"]


def test_what_needs_a_failed_build_is_not_begun() -> None:
    pool = FakePool(base=3)
    ended = {e.key: e for e in run([node("web", "base"), node("base"), node("other")], here(pool), pool, parallel=1, fail_fast=False)}
    assert ended["web"].skipped and ended["web"].code == "build.not-begun" and "base" in ended["web"].error
    assert ended["other"].exit_code == 0 and not ended["other"].skipped


def test_fail_fast_begins_nothing_more() -> None:
    pool = FakePool(a=3)
    ended = {e.key: e for e in run([node("a"), node("b"), node("c")], here(pool), pool, parallel=1, fail_fast=True)}
    assert pool.begun == ["a"]
    assert ended["b"].skipped and ended["c"].skipped and ended["c"].code == "build.not-begun"


def test_a_circle_is_named() -> None:
    with pytest.raises(UsageError, match=r"(a -> b -> a|b -> a -> b)") as error:
        order([node("a", "b"), node("b", "a")])
    assert error.value.code == "plan.cycle"


def test_the_template_of_a_missing_base_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("schema: 1\nname: debian-13\n")
    (tmp_path / "other.yaml").write_text("name: something-else\n")
    (tmp_path / "broken.yaml").write_text(": : :\n")
    web = template("web", tmp_path / "web.yaml", ImageSource(image="debian-13@^13.1"))
    looked: list[str] = []

    def load(path: Path) -> list[Template]:
        looked.append(path.name)
        return [template("debian-13", path)]

    found = find_template(web.source, web, load)
    assert found is not None and found.path.name == "base.yaml"
    assert looked == ["base.yaml"], "files that cannot be it are not read as templates"


def test_no_template_for_a_missing_base(tmp_path: Path) -> None:
    web = template("web", tmp_path / "web.yaml", ImageSource(image="debian-13"))
    assert find_template(web.source, web, lambda path: []) is None
