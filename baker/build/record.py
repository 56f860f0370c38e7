"""Records a build: puts the evidence into the store, then writes the rows in one transaction, which is the commit point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

from baker.build.artifacts import BuildArtifacts, Evidence
from baker.build.job import Job
from baker.build.services import Services
from baker.build.values import Captured, VerifyOutcome
from baker.catalog.records import BuildRecord, ImageRecord, Publication, StepRecord
from baker.core import host_facts
from baker.core.errors import BakeError
from baker.core.events import Reporter
from baker.core.model import Disk, MachineFacts, Media, SourceImage, TestReport
from baker.core.workspace import new_id
from baker.plan.inputs import pack
from baker.plan.plan import Plan, recorded_machine_spec, verify_key
from baker.store.base import BlobStore

Status = Literal["built", "verified", "stopped", "failed", "interrupted"]


def record(job: Job, plan: Plan, captured: Captured, outcome: VerifyOutcome, artifacts: BuildArtifacts) -> ImageRecord:
    """Register the image with the record of its build. This is the commit point: before it, the image does not exist."""
    inspection = artifacts.inspection
    assert inspection is not None  # an image is recorded once its disk has been read
    with job.report.stage("record"):
        source = plan.source
        chain, size = stored_media(job.services, source, captured.media)
        template = job.template
        image = ImageRecord(
            id=new_id(),
            name=template.name,
            version=template.version,
            digest=inspection.digest,
            fingerprint=plan.fingerprint,
            parent=source.parent,
            created=host_facts.now(),
            size=size,
            virtual_size=captured.media.virtual_size,
            chain=chain,
            verified=outcome.status == "passed",
            build=job.id,
            builder=template.builder.kind,
            firmware=template.builder.machine_spec().firmware,
            ssh_username=template.communicator.ssh_username or source.ssh_username or "root",
            description=template.description,
            labels=dict(template.labels),
            matrix=dict(template.matrix),
        )
        evidence = stored_evidence(job.services.store, artifacts.evidence(template.secrets.mask))
        evidence["inputs"] = job.services.store.add_file(pack(plan, job.scratch / "inputs.tar.gz", search=job.services.search))
        build = replace(
            _record(job, "built", captured.facts or outcome.facts),
            inputs=plan.inputs,
            verify=outcome.status,
            tests=outcome.report.outcomes if outcome.report else (),
            evidence=evidence,
            reproduction=_reproduction(job, captured, artifacts),
        )
        register(job.services, job.report, build, image, captured.publications)
    return image


def record_failure(job: Job, error: BaseException, status: Literal["failed", "interrupted"]) -> None:
    """Record a failed build with its log."""
    job.log.write_error(str(error))
    tests = tuple(job.events.tests)
    build = replace(
        _record(job, status, None),
        error=job.template.secrets.mask(str(error)),
        verify="failed" if tests else "not reached",
        tests=tests,
        evidence=_logs(job),
    )
    job.services.catalog.register(build, None)


def record_verified(job: Job, report: TestReport, facts: MachineFacts | None) -> None:
    """Record a build that only tested an existing image with other tests."""
    build = replace(_record(job, "verified", facts), verify="passed", tests=report.outcomes, evidence=_logs(job))
    job.services.catalog.register(build, None)


def record_stopped(job: Job) -> None:
    """Record a build that stopped after a step as requested."""
    job.services.catalog.register(replace(_record(job, "stopped", None), evidence=_logs(job)), None)


def _record(job: Job, status: Status, facts: MachineFacts | None) -> BuildRecord:
    template, secrets, planned = job.template, job.template.secrets, job.events.planned
    source: dict[str, Any] = {"spec": json.loads(secrets.seal(template.source.model_dump_json()))}
    common = build_record(
        job.services,
        id=job.id,
        status=status,
        started=job.started_at,
        name=template.name,
        version=template.version,
        source=source | (planned.source if planned else {}),
        shape=recorded_machine_spec(template),
        timings=job.events.timings,
        facts=facts,
    )
    return replace(
        common,
        template_path=str(template.path),
        template_text=template.text,
        template_digest="sha256:" + hashlib.sha256(template.text.encode()).hexdigest(),
        git_commit=template.git_commit,
        git_dirty=template.git_dirty,
        variables=_variables(job),
        steps=tuple(_steps(job)),
        fingerprint=planned.fingerprint if planned else "",
        verify_key=verify_key(template),
    )


def _reproduction(job: Job, captured: Captured, artifacts: BuildArtifacts) -> dict[str, Any]:
    """The data about reproducibility: SOURCE_DATE_EPOCH and the layout of the disk."""
    template = job.template
    found: dict[str, Any] = {"epoch": template.epoch.seconds, "epoch_from": template.epoch.origin, "wanted": template.reproducible}
    if captured.normalized:
        normalized = captured.normalized
        rules = {rule: len(paths) for rule, paths in normalized.rules.items()}
        found["layout"] = {"version": normalized.version, "rules": rules, "files": normalized.files, "kept": normalized.files_in_place}
    if captured.not_normalized:
        found["refused"] = captured.not_normalized
    if not artifacts.downloads_complete:
        found["unrecorded"] = "not all downloads of the build were recorded"
    return found


def _variables(job: Job) -> dict[str, Any]:
    """The variables for the record: a sensitive value is replaced by its keyed hash."""
    found = {}
    for variable in job.template.variables.values():
        value = {"hmac": job.template.secrets.hash(str(variable.value))} if variable.sensitive else variable.value
        found[variable.name] = {"value": value, "type": variable.type, "origin": variable.origin, "sensitive": variable.sensitive}
    return found


def _steps(job: Job) -> Iterable[StepRecord]:
    planned = {step["index"]: step for step in job.events.planned.steps} if job.events.planned else {}
    for index, step in enumerate(job.template.provisioners, start=1):
        done, known = job.events.steps.get(index), planned.get(index, {})
        record = StepRecord(index, step.name, step.kind, known.get("key", ""), step.origin, step.bundle, inputs=known.get("inputs", {}))
        if done:
            status: Literal["done", "failed", "cached"] = "cached" if done.cached else "done" if done.ok else "failed"
            record = replace(record, status=status, seconds=round(done.seconds, 3), exit_code=done.exit_code, attempts=done.attempts)
            record = replace(record, ran=done.ran)
        yield record


def _logs(job: Job) -> dict[str, str]:
    """Put the logs and the test report of a build into the store."""
    return stored_evidence(job.services.store, job.artifacts.snapshot().logs(job.template.secrets.mask))


# --- shared with `bake commit` (baker.sessions.commit) ------------------------------------------------------------------


def build_record(
    services: Services,
    *,
    id: str,  # noqa: A002 - the record's own word
    status: Status,
    started: str,
    name: str,
    version: str,
    source: Mapping[str, Any],
    shape: Mapping[str, Any],
    timings: Mapping[str, float],
    facts: MachineFacts | None = None,
) -> BuildRecord:
    """Return the record of work that has just finished: when, where, by whom, on which machine. It has no template and no steps."""
    machine = asdict(facts) if facts else {}
    return BuildRecord(
        id=id,
        status=status,
        started=started,
        finished=host_facts.now(),
        template_name=name,
        template_version=version,
        template_path="",
        template_text="",
        template_digest="",
        git_commit="",
        git_dirty=False,
        variables={},
        source=source,
        steps=(),
        shape=shape,
        machine=machine,
        host=host_facts.host_facts(),
        tools=host_facts.tool_versions() | machine.get("tools", {}),
        who=host_facts.who(),
        ci=host_facts.ci_run(services.env),
        timings=dict(timings),
    )


def stored_evidence(store: BlobStore, items: Iterable[Evidence]) -> dict[str, str]:
    """Put evidence into the store; return name -> digest. Content that the store has already is not read again."""
    found = {}
    for each in items:
        if each.digest and store.has(each.digest):
            found[each.name] = each.digest
        else:
            found[each.name] = store.add_bytes(each.content) if isinstance(each.content, bytes) else store.add_file(each.content)
    return found


def register(
    services: Services, report: Reporter, build: BuildRecord, image: ImageRecord, publications: Iterable[Publication] = ()
) -> None:
    """Write the rows of an image in one transaction, then sign its provenance if there is a default key. A failure to sign is a warning,
    because the image exists by then."""
    services.catalog.register(build, image, [replace(each, image=image.id, created=image.created) for each in publications])
    if not (services.home.data / "keys" / "default").exists():
        return
    from baker.trust.attest.signing import TrustContext, attest

    try:
        attest(image, TrustContext.of(services.home, services.catalog, services.store, services.env))
    except BakeError as error:
        report.warn(f"the image is not attested: {error.message}; `bake attest {image.id}` attests it later")


def stored_media(services: Services, source: SourceImage, media: Media) -> tuple[tuple[str, ...], int]:
    """Put an image's disk into the store. Returns the blobs of its chain and the number of new bytes; an empty chain for an AMI."""
    if not isinstance(media, Disk):
        return (), 0
    store = services.store
    parent = services.catalog.image(source.parent) if source.parent else None
    below = parent.chain if parent else source.chain
    delta = store.add_disk(media, below[0] if below else None)
    return (delta, *below), store.size(delta) + (0 if parent else sum(map(store.size, below)))
