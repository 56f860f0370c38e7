"""The record of a build: the evidence goes into the store first, then one transaction writes the rows. That is the commit point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from baker.artifacts import ansible_content, egress
from baker.artifacts.codecs import pack_lines, pack_packages, pack_text
from baker.build.downloads import recorded
from baker.build.job import Job
from baker.build.values import Captured, Inspection, VerifyOutcome
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.core import host_facts
from baker.core.errors import BakeError
from baker.core.model import Disk, MachineFacts, Media, SourceImage, TestReport
from baker.core.workspace import new_id
from baker.plan.inputs import pack
from baker.plan.plan import Plan, recorded_machine_spec, verify_key
from baker.proxy.recording import incomplete, read
from baker.proxy.store import Store

JUNIT = "junit.xml"


def record(job: Job, plan: Plan, captured: Captured, inspection: Inspection, verdict: VerifyOutcome) -> ImageRecord:
    """Register the image with the whole record of its build: before this there is no image, after it there is one."""
    with job.report.stage("record"):
        source = plan.source
        chain, size = _stored(job, source, captured.media)
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
            verified=verdict.status == "passed",
            build=job.id,
            builder=template.builder.kind,
            firmware=template.builder.machine_spec().firmware,
            ssh_username=template.communicator.ssh_username or source.ssh_username or "root",
            description=template.description,
            labels=dict(template.labels),
            matrix=dict(template.matrix),
        )
        evidence = _evidence(job) | _inspection_evidence(job, inspection)
        evidence["inputs"] = job.services.store.add_file(pack(plan, job.scratch / "inputs.tar.gz", search=job.services.search))
        build = replace(
            _record(job, "built", captured.facts or verdict.facts),
            inputs=plan.inputs,
            verify=verdict.status,
            tests=verdict.report.outcomes if verdict.report else (),
            evidence=evidence,
            reproduction=_reproduction(job, captured),
        )
        job.services.catalog.register(
            build, image, [replace(each, image=image.id, created=image.created) for each in captured.publications]
        )
        _attest(job, image)
    return image


def _attest(job: Job, image: ImageRecord) -> None:
    """Sign where the image comes from, when there is a key for that. The image is there by now: what fails is told, not fatal."""
    if not (job.services.home.data / "keys" / "default").exists():
        return
    from baker.trust.attest.signing import TrustContext, attest

    services = job.services
    try:
        attest(image, TrustContext.of(services.home, services.catalog, services.store, services.env))
    except BakeError as error:
        job.report.warn(f"the image is not attested: {error.message}; `bake attest {image.id}` does it later")


def _stored(job: Job, source: SourceImage, media: Media) -> tuple[tuple[str, ...], int]:
    """The blobs that hold the image, and how many bytes of them are new; none of an image that is elsewhere."""
    if not isinstance(media, Disk):
        return (), 0
    store = job.services.store
    parent = job.services.catalog.image(source.parent) if source.parent else None
    below = parent.chain if parent else source.chain
    delta = store.add_disk(media, below[0] if below else None)
    return (delta, *below), store.size(delta) + (0 if parent else sum(map(store.size, below)))


def record_failure(job: Job, error: BaseException, status: Literal["failed", "interrupted"]) -> None:
    """Keep the record and the log of a build that made no image."""
    job.log.write_error(str(error))
    tests = tuple(job.story.tests)
    build = replace(
        _record(job, status, None),
        error=job.template.secrets.mask(str(error)),
        verify="failed" if tests else "not reached",
        tests=tests,
        evidence=_evidence(job),
    )
    job.services.catalog.register(build, None)


def record_verified(job: Job, report: TestReport, facts: MachineFacts | None) -> None:
    """Keep the record of a build that had nothing to make, but an image of before to test with other tests."""
    build = replace(_record(job, "verified", facts), verify="passed", tests=report.outcomes, evidence=_evidence(job))
    job.services.catalog.register(build, None)


def record_stopped(job: Job) -> None:
    """Keep the record of a build that was to stop after a step."""
    job.services.catalog.register(replace(_record(job, "stopped", None), evidence=_evidence(job)), None)


def note_tests(job: Job, report: TestReport) -> None:
    """Keep the JUnit report of a verification where the evidence is looked for."""
    (job.scratch / JUNIT).write_text(report.junit)


def _record(job: Job, status: Literal["built", "verified", "stopped", "failed", "interrupted"], facts: MachineFacts | None) -> BuildRecord:
    template, secrets, planned = job.template, job.template.secrets, job.story.planned
    source: dict[str, Any] = {"spec": json.loads(secrets.seal(template.source.model_dump_json()))}
    source |= planned.source if planned else {}
    machine = asdict(facts) if facts else {}
    return BuildRecord(
        id=job.id,
        status=status,
        started=job.started_at,
        finished=host_facts.now(),
        template_name=template.name,
        template_version=template.version,
        template_path=str(template.path),
        template_text=template.text,
        template_digest="sha256:" + hashlib.sha256(template.text.encode()).hexdigest(),
        git_commit=template.git_commit,
        git_dirty=template.git_dirty,
        variables=_variables(job),
        source=source,
        steps=tuple(_steps(job)),
        shape=recorded_machine_spec(template),
        machine=machine,
        host=host_facts.host_facts(),
        tools=host_facts.tool_versions() | machine.get("tools", {}),
        who=host_facts.who(),
        ci=host_facts.ci_run(job.services.env),
        timings=dict(job.story.timings),
        fingerprint=planned.fingerprint if planned else "",
        verify_key=verify_key(template),
    )


def _reproduction(job: Job, captured: Captured) -> dict[str, Any]:
    """What made the build repeatable: the time that it said it is, and how the disk was laid out."""
    template = job.template
    found: dict[str, Any] = {"epoch": template.epoch.seconds, "epoch_from": template.epoch.origin, "wanted": template.reproducible}
    if captured.normalized:
        normalized = captured.normalized
        rules = {rule: len(paths) for rule, paths in normalized.rules.items()}
        found["layout"] = {"version": normalized.version, "rules": rules, "files": normalized.files, "kept": normalized.kept}
    if captured.not_normalized:
        found["refused"] = captured.not_normalized
    if any(map(incomplete, recorded(job))):
        found["unrecorded"] = "what the build fetched could not all be written down"
    return found


def _variables(job: Job) -> dict[str, Any]:
    """The variables as the record may show them: a sensitive value is its keyed hash."""
    found = {}
    for variable in job.template.variables.values():
        value = {"hmac": job.template.secrets.hash(str(variable.value))} if variable.sensitive else variable.value
        found[variable.name] = {"value": value, "type": variable.type, "origin": variable.origin, "sensitive": variable.sensitive}
    return found


def _steps(job: Job) -> Iterable[StepRecord]:
    planned = {step["index"]: step for step in job.story.planned.steps} if job.story.planned else {}
    for index, step in enumerate(job.template.provisioners, start=1):
        done, known = job.story.steps.get(index), planned.get(index, {})
        record = StepRecord(index, step.name, step.kind, known.get("key", ""), step.origin, step.bundle, inputs=known.get("inputs", {}))
        if done:
            status: Literal["done", "failed", "cached"] = "cached" if done.cached else "done" if done.ok else "failed"
            record = replace(record, status=status, seconds=round(done.seconds, 3), exit_code=done.exit_code, attempts=done.attempts)
            record = replace(record, ran=done.ran)
        yield record


def _evidence(job: Job) -> dict[str, str]:
    """Put the logs and the test report into the store."""
    found = {"log": _keep_text(job, job.log.path)}
    for path in sorted(job.scratch.glob("*.console.log")):
        found[path.name.removesuffix(".log").replace(".", "_")] = _keep_text(job, path)
    if (job.scratch / JUNIT).exists():
        found["junit"] = _keep_text(job, job.scratch / JUNIT)
    return found


def _fetched(job: Job) -> dict[str, str]:
    """What the build's machines fetched: the list, and every body. What has a secret in its address stays out, and is listed so."""
    store, lines, bodies = job.services.store, [], {}
    for directory in recorded(job):
        place = Store(directory)
        for fetched in read(directory):
            if job.template.secrets.mask(fetched.url) != fetched.url:
                fetched = replace(
                    fetched, url=job.template.secrets.mask(fetched.url), digest="", headers=(), why="a secret is in its address"
                )
            if fetched.digest and not store.has(fetched.digest):
                store.add_file(place.body(fetched.digest))
            if fetched.digest:
                bodies[f"body:{fetched.digest.removeprefix('sha256:')}"] = fetched.digest
            lines.append(json.dumps(asdict(fetched), sort_keys=True, separators=(",", ":")))
    return {"fetches": store.add_bytes(pack_lines(lines)), **bodies} if lines else {}


def _keep_text(job: Job, path: Path) -> str:
    text = job.template.secrets.mask(path.read_text(errors="replace"))
    return job.services.store.add_bytes(pack_text(text))


def _inspection_evidence(job: Job, inspection: Inspection) -> dict[str, str]:
    store = job.services.store
    found = _fetched(job) | {
        "packages_before": store.add_bytes(pack_packages(inspection.packages_before)),
        "packages_after": store.add_bytes(pack_packages(inspection.packages_after)),
    }
    if contents := ansible_content.read(job.scratch):
        found[ansible_content.EVIDENCE] = store.add_bytes(ansible_content.pack(contents))
    if (job.scratch / egress.NAME).exists():
        found["egress"] = store.add_file(job.scratch / egress.NAME)
    if inspection.manifest:
        found["manifest"] = store.add_file(inspection.manifest)
    if inspection.changes:
        found["changes"] = store.add_file(inspection.changes)
    return found
