"""The catalog: one transaction per build, references as people type them, schemas that meet."""

from __future__ import annotations

import io
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from baker.artifacts.codecs import pack_json, pack_lines, read_json, read_lines, read_manifest, write_manifest
from baker.catalog import database, lookup, sqlite, tables
from baker.catalog.catalog import Catalog
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.catalog.reference import matches
from baker.catalog.repository import equal
from baker.core.errors import BakeError, BusyError, HostError, NotFoundError, UsageError
from baker.core.leases import FileLeases
from baker.core.model import FileEntry, TestOutcome
from baker.core.workspace import STORE_LEASE
from baker.store.directory import DirectoryStore
from baker.upkeep.orphans import collect_orphans


def digest(number: int | str) -> str:
    return "sha256:" + str(number).rjust(64, "0")


def a_build(identifier: str = "b00000000001", **changes: object) -> BuildRecord:
    record = BuildRecord(
        id=identifier,
        status="built",
        started="2026-11-22T20:45:51Z",
        finished="2026-11-22T20:46:51Z",
        template_name="web",
        template_version="1.4.0",
        template_path="/t/web.yaml",
        template_text="schema: 1\nname: web ü\n",
        template_digest=digest(1),
        git_commit="",
        git_dirty=False,
        variables={"title": {"value": "x", "type": "string", "origin": "default", "sensitive": False}},
        source={"kind": "debootstrap", "pins": {"a": "b"}},
        steps=(StepRecord(1, "packages", "shell", "0" * 64, "web.yaml:3:5", status="done", seconds=1.5, exit_code=0, attempts=1),),
        shape={"cpus": 2},
        machine={"accelerator": "tcg"},
        host={"name": "h"},
        tools={"qemu": "7.2"},
        who="me",
        ci={},
        timings={"provision": 12.5},
        tests=(TestOutcome("test_a", "passed", 0.5), TestOutcome("test_b", "skipped", 0.0, "why")),
        verify="passed",
        fingerprint="f" * 64,
        evidence={"log": digest(90), "manifest": digest(91)},
        inputs={"files/a": "0" * 64},
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def an_image(identifier: str, name: str = "web", version: str = "1.4.0", **changes: object) -> ImageRecord:
    image = ImageRecord(
        id=identifier,
        name=name,
        version=version,
        digest=digest(identifier),
        fingerprint="f" * 64,
        parent=None,
        created="2026-11-22T20:46:50Z",
        size=10,
        virtual_size=8 << 40,
        chain=(digest(identifier),),
        verified=True,
        build="b" + identifier[0] + identifier[2:],
        labels={"team": "shop"},
        matrix={"arch": "amd64"},
    )
    return replace(image, **changes)  # type: ignore[arg-type]


def add(catalog: Catalog, *images: ImageRecord) -> None:
    for image in images:
        catalog.register(a_build(image.build, template_name=image.name, evidence={"log": digest("e" + image.id)}), image)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """empty.sqlite, and shop.sqlite: debian-13 13.0.0 and 13.1.0; web 1.3.0, 1.4.0 and 2.0.0-rc.1 on the latter."""
    directory = tmp_path_factory.mktemp("catalogs")
    empty, shop = Catalog(directory / "empty.sqlite"), Catalog(directory / "shop.sqlite")
    empty.images()
    base = digest("a00000000002")
    add(
        shop,
        an_image("a00000000001", "debian-13", "13.0.0"),
        an_image("a00000000002", "debian-13", "13.1.0"),
        an_image("c00000000001", "web", "1.4.0", parent="a00000000002", chain=(digest("c00000000001"), base)),
        an_image("c00000000002", "web", "1.3.0", parent="a00000000002", chain=(digest("c00000000002"), base), verified=False),
        an_image("c10000000003", "web", "2.0.0-rc.1", parent="a00000000002", chain=(digest("c10000000003"), base)),
    )
    empty.close()
    shop.close()
    return directory


@pytest.fixture
def catalog(tmp_path: Path, prepared: Path) -> Catalog:
    return Catalog(Path(shutil.copy(prepared / "empty.sqlite", tmp_path / "catalog.sqlite")))


@pytest.fixture
def shop(tmp_path: Path, prepared: Path) -> Catalog:
    return Catalog(Path(shutil.copy(prepared / "shop.sqlite", tmp_path / "catalog.sqlite")))


def test_records_come_back_whole(catalog: Catalog) -> None:
    build, image = a_build("b00000000009"), an_image("a00000000009", build="b00000000009", chain=(digest(1), digest(2)))
    catalog.register(build, image)
    again = Catalog(catalog.place)
    assert again.images() == [image]
    assert again.image(image.id) == image
    assert again.build_of(image) == build
    assert again.build("b000") == build
    assert again.builds("web", limit=1) == [build]
    assert again.builds("other") == []


def test_a_failed_build_is_on_record_without_an_image(catalog: Catalog) -> None:
    build = a_build(status="failed", error="step 1 failed", tests=(), evidence={})
    catalog.register(build, None)
    assert catalog.builds() == [build]
    assert catalog.images() == []


def test_all_or_nothing(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="a00000000001 of build b00000000001") as conflict:
        catalog.register(a_build(), an_image("a00000000001", build="b00000000001", parent="d00000000000"))
    assert conflict.value.code == "catalog.conflict"
    assert catalog.builds() == []
    assert catalog.referenced_digests() == set()
    catalog.register(a_build(), None)
    with pytest.raises(UsageError, match="build b00000000001") as conflict:
        catalog.register(a_build(), None)
    assert conflict.value.code == "catalog.conflict"


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("web", "1.4.0"),
        ("web@1.3.0", "1.3.0"),
        ("web@1.3", "1.3.0"),
        ("web@1", "1.4.0"),
        ("web@^1.2", "1.4.0"),
        ("web@~1.3", "1.3.0"),
        ("web@>=1,<1.4", "1.3.0"),
        ("web@>=1 <1.4", "1.3.0"),
        ("web@2.0.0-rc.1", "2.0.0-rc.1"),
        ("web@latest", "1.4.0"),
        ("debian-13@^13.0", "13.1.0"),
        ("c00000000002", "1.3.0"),
        ("c10", "2.0.0-rc.1"),
        ("sha256:" + "c00000000001".rjust(64, "0"), "1.4.0"),
        (" web ", "1.4.0"),
    ],
)
def test_references(shop: Catalog, reference: str, version: str) -> None:
    assert shop.resolve(reference).version == version


@pytest.mark.parametrize(
    ("reference", "error", "code", "facts"),
    [
        ("wbe", NotFoundError, "image.not-found", "'wbe'.*'web'.*debian-13, web"),
        ("zzzzzz", NotFoundError, "image.not-found", "'zzzzzz'\n.*debian-13, web"),
        ("web@^3", NotFoundError, "image.version-not-found", r"web .*\^3\n.*web@1.4.0, web@1.3.0, web@2.0.0-rc.1"),
        ("web@9.9.9", NotFoundError, "image.version-not-found", "web .*9.9.9"),
        ("web@stable", NotFoundError, "image.version-not-found", "'stable'"),
        ("web@!!", UsageError, "image.reference", "'!!'"),
        ("c00", UsageError, "image.ambiguous", "c00 .* 2 images:.*c00000000002  web@1.3.0"),
        ("sha256:", NotFoundError, "image.not-found", "sha256:"),
        ("sha256:000", UsageError, "image.ambiguous", "sha256:000 .* 5 images"),
        ("sha256:fff", NotFoundError, "image.not-found", "sha256:fff"),
        ("", NotFoundError, "image.not-found", "''"),
    ],
)
def test_references_that_do_not_resolve(shop: Catalog, reference: str, error: type[BakeError], code: str, facts: str) -> None:
    with pytest.raises(error, match=f"(?s){facts}") as failure:
        shop.resolve(reference)
    assert failure.value.code == code


def test_an_empty_catalog_says_so(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="bake build TEMPLATE") as failure:
        catalog.resolve("web")
    assert failure.value.code == "image.not-found"


def test_equal_images_are_not_ambiguous(shop: Catalog) -> None:
    add(shop, an_image("e00000000001", "web", "1.4.0", digest=digest("c00000000001")))
    assert shop.resolve(digest("c00000000001")).id == "e00000000001"
    assert shop.resolve("web@1.4.0").id == "e00000000001", "the last made of one version"


def test_what_would_match() -> None:
    assert matches("web", "web", "0.1.0")
    assert matches("web@^1.2", "web", "1.9.0")
    assert not matches("web@^1.2", "web", "2.0.0")
    assert not matches("web", "web2", "1.0.0")
    assert not matches("web@stable", "web", "1.0.0")
    assert not matches("c00000000001", "web", "1.0.0")


def test_listing(shop: Catalog) -> None:
    assert [image.version for image in shop.images("web")] == ["2.0.0-rc.1", "1.3.0", "1.4.0"]
    assert len(shop.images(labels={"team": "shop"})) == 5
    assert shop.images(labels={"team": "other"}) == []


LABELS = {"org.example.team/tier": "front.a/b", "org": "no object", "a.b": "", 'it\'s "odd" [0]': "$.x"}


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"org.example.team/tier": None}, True),
        ({"org.example.team/tier": "front.a/b"}, True),
        ({"org.example.team/tier": "front"}, False),
        ({"org.example": None}, False),
        ({"team/tier": None}, False),
        ({"a.b": ""}, True),
        ({"a": None}, False),
        ({'it\'s "odd" [0]': "$.x", "org": "no object"}, True),
        ({'it\'s "odd" [0]': "y"}, False),
    ],
)
def test_names_of_labels_are_no_paths(shop: Catalog, labels: dict[str, str | None], found: bool) -> None:
    add(shop, an_image("e00000000001", "labelled", "1.0.0", labels=LABELS))
    assert [image.name for image in shop.images("labelled", labels)] == ["labelled"] * found


def test_fingerprints(shop: Catalog) -> None:
    found = shop.by_fingerprint("f" * 64, name="web")
    assert found is not None
    assert found.version == "2.0.0-rc.1"
    add(shop, an_image("e00000000001", "web", "1.4.0", verified=False))
    found = shop.by_fingerprint("f" * 64, name="web", version="1.4.0")
    assert found is not None
    assert found.id == "c00000000001", "a verified image is preferred to a later one that is not"
    assert shop.by_fingerprint("0" * 64) is None


def test_lineage(shop: Catalog) -> None:
    web = shop.resolve("web")
    assert [image.id for image in shop.history(web)] == ["c00000000001", "a00000000002"]
    assert shop.history(web.id) == shop.history(web)
    assert len(shop.children("a00000000002")) == 3
    roots = shop.tree()
    assert [(node.image.version, len(node.children)) for node in roots] == [("13.1.0", 3), ("13.0.0", 0)]


def test_removing(shop: Catalog) -> None:
    with pytest.raises(BusyError, match=r"web@1\.4\.0") as busy:
        shop.remove("a00000000002")
    assert busy.value.code == "image.has-children"
    removed = shop.remove("a00000000002", force=True)
    assert removed.removed
    assert digest("a00000000002") in shop.referenced_digests(), "its children still need its disk"
    assert "13.1.0" in [node.image.version for node in shop.tree()]
    for identifier in ("c00000000001", "c00000000002", "c10000000003"):
        shop.remove(identifier)
    assert digest("a00000000002") not in shop.referenced_digests()
    assert digest("ea00000000002") in shop.referenced_digests(), "the build's evidence stays"
    assert [node.image.version for node in shop.tree()] == ["13.0.0"]
    assert shop.image("c00000000001").removed
    assert shop.build_of(removed).id == removed.build
    assert shop.by_fingerprint("f" * 64, name="web") is None
    assert len(shop.images(all=True)) == 5
    for text in ("web", "c00000000001"):
        with pytest.raises(NotFoundError):
            shop.resolve(text)
    with pytest.raises(NotFoundError, match="c00000000001") as missing:
        shop.remove("c00000000001")
    assert missing.value.code == "image.removed"


def test_builds_by_prefix(shop: Catalog) -> None:
    with pytest.raises(UsageError) as ambiguous:
        shop.build("b")
    assert ambiguous.value.code == "build.ambiguous"
    for name in ("x", "", "%"):
        with pytest.raises(NotFoundError, match=f"'{name}'") as missing:
            shop.build(name)
        assert missing.value.code == "build.not-found"


# --- the database itself -------------------------------------------------------------------------------------------------


def test_the_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = database.open_engine(tmp_path / "catalog.sqlite")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.Base.metadata) == []


def test_a_new_file_is_what_the_migrations_make() -> None:
    assert sqlite.SCHEMA.read_text() == database.schema_sql(), "write it anew: make catalog-schema"


def test_reading_loads_no_sqlalchemy(shop: Catalog) -> None:
    code = (
        "import sys; from baker.catalog.catalog import Catalog; catalog = Catalog(sys.argv[1]); image = catalog.resolve('web@^1.4'); "
        "catalog.images(); catalog.history(image); catalog.build_of(image); catalog.channels.all(); catalog.revocations.in_force('9'); "
        "catalog.by_fingerprint('f'); catalog.publications(image.id); catalog.referenced_digests(); sys.exit('sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(shop.place)], check=True)


def test_a_database_of_another_kind_is_read_the_same(shop: Catalog) -> None:
    """Through SQLAlchemy; here it is SQLite all the same, which has PostgreSQL's ->> too."""
    engine = create_engine(f"sqlite:///{shop.place}", connect_args={"detect_types": sqlite3.PARSE_DECLTYPES})
    web = shop.resolve("web@1.4.0")
    with engine.connect() as connection:
        reader = database.EngineReader(connection)
        assert lookup.images(reader, equal(name="web")) == shop.images("web")
        assert lookup.images(reader, lookup.labelled(reader, {"team": "shop"})) == shop.images(labels={"team": "shop"}, all=True)
        assert lookup.images(reader, lookup.labelled(reader, {"team": "none"})) == []
        assert tuple(lookup.line(reader, web.id)) == shop.history(web)
        assert lookup.builds(reader, equal(id=web.build)) == [shop.build_of(web)]
        assert {each.id for each in lookup.candidates(reader, "web")} == {each.id for each in shop.images("web")}
        assert lookup.below(reader, [web.parent or ""]).keys() >= {web.id}
    engine.dispose()


def test_every_migration_is_known_and_goes_back(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    assert tuple(reversed([step.revision for step in ScriptDirectory.from_config(config).walk_revisions()])) == sqlite.REVISIONS
    engine = database.open_engine(tmp_path / "catalog.sqlite")
    with database.for_writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        database.upgrade(connection)
        assert "images" in inspect(connection).get_table_names()


def test_opening_again_needs_no_migration_tool(catalog: Catalog) -> None:
    catalog.images()
    code = "import sys; from baker.catalog.catalog import Catalog; Catalog(sys.argv[1]).images(); sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(catalog.place)], check=True)


REGISTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_catalog import Catalog, add, an_image
sys.stdin.readline()
catalog = Catalog(Path(sys.argv[1]))
for number in range(3):
    add(catalog, an_image(f"{sys.argv[2]}{number:011d}"))
"""


def test_two_processes_make_and_write_one_catalog_at_once(tmp_path: Path) -> None:
    place = tmp_path / "catalog.sqlite"
    argv = [sys.executable, "-c", REGISTER, str(place)]
    writers = [subprocess.Popen([*argv, tag, str(Path(__file__).parent)], stdin=subprocess.PIPE, text=True) for tag in "ac"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert len(Catalog(place).images()) == 6


def test_a_newer_schema_is_refused(catalog: Catalog) -> None:
    catalog.images()
    catalog.close()
    with sqlite3.connect(str(catalog.place)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HostError, match=rf"schema 9999.*up to {sqlite.HEAD}"):
        catalog.images()


def test_a_locked_catalog_says_busy(catalog: Catalog) -> None:
    catalog.images()
    impatient = Catalog(catalog.place, busy_seconds=0.1)
    with sqlite3.connect(str(catalog.place), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert impatient.images() == [], "readers do not wait for writers"
        with pytest.raises(BusyError, match="another process"):
            impatient.register(a_build(), None)


def test_what_is_no_catalog(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(HostError, match="damaged or not a catalog"):
        Catalog(path).images()
    with pytest.raises(HostError, match=r"cannot write|not a directory|cannot create"):
        Catalog(path / "below").images()
    with pytest.raises(HostError, match="no driver"):
        Catalog("nodb://user:hidden@host/x").images()


def test_a_read_only_catalog(catalog: Catalog) -> None:
    catalog.images()
    catalog.close()
    read_only = Catalog(f"sqlite:///file:{catalog.place}?mode=ro&uri=true")
    assert read_only.images() == []
    with pytest.raises(HostError, match=r"cannot write the catalog.*readonly"):
        read_only.register(a_build(), None)


# --- evidence and orphans ------------------------------------------------------------------------------------------------


def test_evidence_comes_back(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "blobs")
    files = (FileEntry("/", 0o40755, 0, 0, 0), FileEntry("/\udcff", 0o100644, 1, 2, 3, "0" * 64, xattrs={"user.a": "00"}))
    manifest = io.BytesIO()
    assert write_manifest(iter(files), manifest) == 2
    assert tuple(read_manifest(io.BytesIO(manifest.getvalue()))) == files
    with store.open(store.add_bytes(pack_lines(["one", "", "zwei ü"]))) as blob:
        assert list(read_lines(blob)) == ["one", "", "zwei ü"]
    with store.open(store.add_bytes(pack_json({"a": [1]}))) as blob:
        assert read_json(blob) == {"a": [1]}
    assert pack_lines(["x"]) == pack_lines(["x"])


def test_orphans_go_and_the_rest_stays(catalog: Catalog, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "blobs")
    disk, log, orphan, kept = (store.add_bytes(text) for text in (b"disk", b"log", b"orphan", b"kept"))
    catalog.register(a_build("b00000000001", evidence={"log": log}), an_image("a00000000001", build="b00000000001", chain=(disk,)))
    leases = FileLeases(tmp_path)
    with leases.shared(STORE_LEASE):
        assert collect_orphans(catalog, store, leases) is None, "a build is alive"
    assert store.has(orphan)
    assert [o.digest for o in collect_orphans(catalog, store, leases, keep=lambda: {kept}, dry_run=True) or ()] == [orphan]
    assert store.has(orphan)
    collect_orphans(catalog, store, leases, keep=lambda: {kept})
    assert set(store.digests()) == {disk, log, kept}
    catalog.remove("a00000000001")
    collect_orphans(catalog, store, leases)
    assert set(store.digests()) == {log}
