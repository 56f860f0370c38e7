"""Rebuilds an image from its record alone, and determines the level of equality that the result reaches.

Nothing is downloaded, and the original template is not read: inputs, source disk and all downloads of guests come from the store. The
machine's clock starts at the time of the recorded build. The result is compared with the image, then removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baker.artifacts.codecs import read_lines, read_manifest, read_packages
from baker.artifacts.trees import compare_trees
from baker.build import stages
from baker.build.inspect import inspect
from baker.build.job import Job, open_job
from baker.build.provision import provision_and_capture
from baker.build.services import Services
from baker.build.values import Inspection
from baker.catalog.journal import IMPORTED, subject_of
from baker.catalog.records import BuildRecord, ImageRecord, Rebuild
from baker.core import host_facts
from baker.core.errors import HostError, Interrupted, NotFoundError, UsageError
from baker.core.model import Disk, Fetched, FileEntry, Package, PackageList, SourceImage
from baker.core.resources import Resources
from baker.core.secrets import SEALED
from baker.core.workspace import STORE_LEASE, new_id, workplace
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.disks.rootfs import open_root
from baker.plan import inputs
from baker.plan.plan import Plan, make_plan, recorded_machine_spec
from baker.plan.requests import BuildOptions
from baker.proxy.recording import Recording
from baker.rebuild import causes
from baker.rebuild.levels import Level, level_of
from baker.template.load import load
from baker.template.model import Template

if TYPE_CHECKING:
    from baker.store.base import BlobStore


SEALED_VALUE = re.compile(rf"({re.escape(SEALED)}[A-Za-z0-9_]+) [0-9a-f]{{32}}}}}}")


@dataclass(frozen=True)
class RebuildOutcome:
    """The result of a rebuild. `packages`: (name, recorded version, rebuilt version) of each that differs; `reasons`: why no higher level
    was reached."""

    image: ImageRecord
    level: Level
    disk: str  # digest
    reasons: tuple[str, ...] = ()
    packages: tuple[tuple[str, str, str], ...] = ()
    groups: tuple[causes.Group, ...] = ()
    rules: tuple[str, ...] = ()  # named rules that changed files of this image, such as "times/1"
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "image": self.image.id,
            "name": self.image.name,
            "version": self.image.version,
            "digest": self.image.digest,
            "rebuilt": self.disk,
            "level": int(self.level),
            "words": self.level.words,
            "reasons": list(self.reasons),
            "packages": [{"package": name, "before": before, "after": after} for name, before, after in self.packages],
            "causes": causes.to_json(self.groups),
            "rules": list(self.rules),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Request:
    """The image to rebuild, and the values of secret variables, which are not recorded."""

    image: ImageRecord
    build: BuildRecord
    secrets: Mapping[str, str] = field(default_factory=dict)
    secret_key: bytes = b""
    uri: str | None = None


def rebuild(request: Request, services: Services) -> RebuildOutcome:
    """Rebuild the image and compare. NotFoundError when the record or the store lacks a part; BakeError when the build fails."""
    if request.image.origin == "committed":
        raise UsageError(
            f"{request.image.name}@{request.image.version} was committed from a shell, so it cannot be rebuilt",
            hint="bake diff with its parent shows the manual changes: put them into a template",
            code="rebuild.committed",
        )
    with workplace(services.home, services.leases, services.ledger) as work:
        check_store(request.image, request.build, services.store)
        template, problems = _template(request, services, work / "inputs")
        source = _source(request, services)
        replay = _replay(request.build, services, work / "fetched")
        options = BuildOptions(
            skip_verify=True, force=True, no_cache=True, replay=replay, uri=request.uri, clock=request.build.started
        )  # fmt: skip
        with open_job(template, options, services, new_id()) as job, _failures_reported(job):
            stages.announce(job)
            plan = make_plan(template, source)
            reasons = [*problems, *_changed(plan, request, elsewhere=_is_imported(request.build, services))]
            captured = stages.normalize(job, plan, provision_and_capture(job, plan, Resources(job.ledger)))
            with job.report.stage("compare"):
                inspection = inspect(captured, source, job.scratch)
                assert isinstance(captured.media, Disk)
                rules = tuple(captured.normalized.rules) if captured.normalized else ()
                found = _compare(request, job, captured.media, inspection, reasons)
                verdict = replace(found, rules=rules, seconds=job.seconds)
            stages.announce_stop(job, "tried")
            return verdict


def rebuild_and_record(request: Request, services: Services) -> RebuildOutcome:
    """Rebuild an image, and record the result."""
    verdict = rebuild(request, services)
    put_on_record(verdict, services)
    return verdict


def put_on_record(verdict: RebuildOutcome, services: Services) -> Rebuild:
    """Record the result of a rebuild: its report in the store, a row in the catalog, an entry in the journal."""
    report = json.dumps(verdict.to_json(), sort_keys=True, indent=1).encode()
    with services.leases.shared(STORE_LEASE):
        digest = services.store.add_bytes(report)
        made = Rebuild(
            verdict.image.id, int(verdict.level), verdict.disk, digest, host_facts.host_facts(), host_facts.who(), host_facts.now()
        )
        services.catalog.rebuilds.add(made)
    return made


@contextmanager
def _failures_reported(job: Job) -> Iterator[None]:
    """Report a failure without recording it, because a rebuild is not a build of the template."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        stages.announce_failure(job, error, "interrupted", logged=False)
        raise
    except Exception as error:
        stages.announce_failure(job, error, "failed", logged=False)
        raise


def check_store(image: ImageRecord, build: BuildRecord, store: BlobStore) -> None:
    """Verify every blob of an image and its build. HostError with every blob that was changed; NotFoundError when one is missing."""
    blobs = {digest: f"disk {position} of image {image.id}" for position, digest in enumerate(image.chain)}
    for name, digest in build.evidence.items():
        blobs.setdefault(digest, f"evidence {name!r} of build {build.id}")
    changed = [f"\n  {what}: {digest}" for digest, what in blobs.items() if not store.verify(digest)]
    if changed:
        raise HostError(
            f"these blobs of image {image.id} were changed in the store:{''.join(changed)}",
            hint="restore them from a copy of the store: nothing is rebuilt from changed bytes",
            code="store.blob-changed",
        )


# --- from the record ---------------------------------------------------------------------------------------------------


def _template(request: Request, services: Services, directory: Path) -> tuple[Template, list[str]]:
    """Load the template from the recorded bytes. Returns it with the reasons why it may differ from the original."""
    with _evidence(request.build, "inputs", services.store, "an older version of bake built it, which did not record inputs") as file:
        context = inputs.unpack(file, directory)
    missing = sorted(set(context.secrets) - request.secrets.keys())
    if missing:
        raise UsageError(
            f"secret values are not recorded, but the build needs {', '.join(missing)}",
            hint=" ".join(f"--var {name}=..." for name in missing),
            code="rebuild.secrets-missing",
        )
    values = {name: _text(value) for name, value in context.variables.items()} | dict(request.secrets)
    templates = load(
        inputs.extracted_path(directory, context.template),
        variables=values,
        env={**context.environment, "SOURCE_DATE_EPOCH": str(context.epoch)},
        secret_key=request.secret_key,
        search=[inputs.extracted_path(directory, path) for path in context.search],
        git=inputs.RecordedGit(facts=context.git),
        overrides=_without_source_file(request.build, directory),
    )
    problems = [f"not all inputs are on record: {why}"] if (why := request.build.reproduction.get("unrecorded")) else []
    template = next((each for each in templates if each.name == context.name), None)
    if template is None:
        raise NotFoundError(f"the template on record does not make an image {context.name!r}", code="record.no-such-image")
    return replace(template, post_processors=()), problems


def _without_source_file(build: BuildRecord, directory: Path) -> Mapping[str, Any]:
    """Override the path of a disk image in the template with an empty file, which must exist: the disk itself is in the store."""
    if build.source.get("kind") != "file":
        return {}
    stand_in = directory / "source-disk"
    stand_in.touch()
    return {"source.file": str(stand_in)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _source(request: Request, services: Services) -> SourceImage:
    """The disk that the build started from: the disk of the parent, or of the source in the image's chain."""
    record, image = request.build.source, request.image
    chain = image.chain[1:]
    if not chain:
        raise NotFoundError(
            f"image {image.id} has no source disk on record", hint="images of EC2 cannot be rebuilt here", code="rebuild.no-source-disk"
        )
    return SourceImage(
        kind=str(record.get("kind", "")),
        title=str(record.get("title", "")),
        digest=str(record["digest"]),
        media=services.store.materialize(chain),
        pins=dict(record.get("pins", {})),
        parent=image.parent,
        ssh_username=image.ssh_username,
        chain=chain,
    )


def _replay(build: BuildRecord, services: Services, directory: Path) -> Path:
    """Write all downloads of the build's machines as a recording for the proxy."""
    recording = Recording(directory)
    if "fetches" in build.evidence:
        with services.store.open(build.evidence["fetches"]) as file:
            for line in read_lines(file):
                value = json.loads(line)
                fetched = Fetched(**value | {"headers": tuple((str(name), str(text)) for name, text in value["headers"])})
                recording.copy(fetched, services.store.path(fetched.digest) if fetched.digest else None)
    recording.close()
    return directory


def _changed(plan: Plan, request: Request, *, elsewhere: bool) -> Iterator[str]:
    """The reasons why the plan of the rebuild differs from the recorded one. `elsewhere`: the record is from another home."""
    if plan.fingerprint == request.image.fingerprint:
        return
    recorded = {step.index: step.key for step in request.build.steps}
    if elsewhere and plan.template.secrets.values and _same_but_for_keys(plan, request.build):
        return
    first = next((planned for planned in plan.steps if recorded.get(planned.index) != planned.key), None)
    where = f"step {first.index} ({first.name})" if first else "the part after the steps"
    yield f"the recorded inputs do not give the recorded plan: {where} has another key"


def _is_imported(build: BuildRecord, services: Services) -> bool:
    return any(entry.kind == IMPORTED for entry in services.catalog.journal.entries(subject_of("build", build.id)))


def _same_but_for_keys(plan: Plan, build: BuildRecord) -> bool:
    """Whether the inputs of a plan are as recorded, except for the hashes of secret values. These are keyed, and each home has its own key.
    So it is unknown whether the values are the same; the comparison of the disks shows it."""
    mine = [_plain(step.inputs) for step in plan.steps]
    shape = recorded_machine_spec(plan.template)
    return mine == [_plain(step.inputs) for step in build.steps] and _plain(shape) == _plain(build.shape)


def _plain(value: Any) -> str:
    """JSON without the hashes of secret values."""
    return SEALED_VALUE.sub(r"\1}}", json.dumps(value, sort_keys=True, default=dict))


@contextmanager
def _evidence(build: BuildRecord, name: str, store: BlobStore, why: str) -> Iterator[Any]:
    if name not in build.evidence:
        raise NotFoundError(f"build {build.id} has no {name} on record", hint=why, code="record.evidence-missing")
    with store.open(build.evidence[name]) as file:
        yield file


# --- the comparison ----------------------------------------------------------------------------------------------------


def _compare(request: Request, job: Job, disk: Disk, inspection: Inspection, reasons: Sequence[str]) -> RebuildOutcome:
    services = job.services
    before = _manifest(request.build, services)
    after = _read_manifest(inspection.manifest)
    packages = _packages(request.build, services), inspection.packages_after
    differences = compare_trees(before, after) if before is not None and after is not None else None
    words = list(reasons)
    if differences is None:
        words.append("this host cannot read the file system, so files were not compared")
    level = level_of(inputs=not reasons, packages=packages, differences=differences, disks=(request.image.digest, inspection.digest))
    unread = list(dict.fromkeys(reason for each in packages for reason in each.unread))
    if unread and level < Level.TREE:
        words.append(f"packages were not compared, because their list is not complete: {'; '.join(unread)}")
    if level == Level.TREE and differences:
        words.append("only times of files differ")
    elif level == Level.TREE:
        refused = request.build.reproduction.get("refused", "")
        wanted = job.template.reproducible
        words.append(f"the disks differ in their layout: {refused or ('' if wanted else 'reproducible: true normalizes it')}".rstrip(": "))
    groups = _explained(differences, services.store.materialize(request.image.chain), disk) if differences else []
    changes = () if unread else tuple(_package_changes(packages[0].packages, packages[1].packages))
    return RebuildOutcome(request.image, level, inspection.digest, tuple(words), changes, tuple(groups))


def _explained(differences: Sequence[Any], before: Disk, after: Disk) -> list[causes.Group]:
    try:
        with open_root(before) as old, open_root(after) as new:
            return causes.explain(differences, old.read, new.read)
    except UnsupportedFilesystem:
        return [causes.Group(causes.OTHER, tuple(differences))]


def _manifest(build: BuildRecord, services: Services) -> list[FileEntry] | None:
    if "manifest" not in build.evidence:
        return None
    with services.store.open(build.evidence["manifest"]) as file:
        return list(read_manifest(file))


def _read_manifest(path: Path | None) -> list[FileEntry] | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return list(read_manifest(file))


def _packages(build: BuildRecord, services: Services) -> PackageList:
    if "packages_after" not in build.evidence:
        return PackageList(unread=("the record has no list of packages",))
    with services.store.open(build.evidence["packages_after"]) as file:
        return read_packages(file)


def _package_changes(before: Sequence[Package], after: Sequence[Package]) -> Iterator[tuple[str, str, str]]:
    old = {(each.name, each.architecture): each.version for each in before}
    new = {(each.name, each.architecture): each.version for each in after}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield key[0], old.get(key, ""), new.get(key, "")
