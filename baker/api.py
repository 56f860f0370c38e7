"""The Python API, on which the command line is built.

with Baker() as bake:
    for image in bake.catalog.images():
        print(image.name, image.version, image.digest)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from baker.core.errors import BakeError, TemplateError, UsageError
from baker.core.events import BuildFinished, Null, Reporter, Sink, TemplateRejected
from baker.core.home import Home
from baker.core.model import BootOptions, Disk, Forward
from baker.plan.requests import BuildOptions, BuildRequest, BuildResult

if TYPE_CHECKING:
    from baker.build.services import Interaction, Services
    from baker.build.test_run import RepeatedChange
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import BuildRecord, ImageRecord
    from baker.core.leases import Leases
    from baker.core.ledger import Ledger
    from baker.explain.diff import Comparison
    from baker.explain.why import PackageReason, Reason
    from baker.layers.explain import Explained
    from baker.layers.store import Layer, LayerStore
    from baker.lockfile.outdated import Examined
    from baker.plan.graph import BuildNode, Ended
    from baker.plan.plan import Plan
    from baker.plan.step_range import LayerOptions
    from baker.publish.archive.service import Archives
    from baker.publish.base import Published, PublishOptions
    from baker.rebuild.rebuild import RebuildOutcome
    from baker.sessions.commit import CommitOptions, CommitSource
    from baker.sessions.ephemeral import Running
    from baker.store.base import BlobStore
    from baker.template.model import Template
    from baker.trust.attest.signing import TrustContext
    from baker.trust.audit.checks import Checker
    from baker.trust.audit.story import Story
    from baker.upkeep.cache_budget import Collected
    from baker.upkeep.disk_usage import Used
    from baker.upkeep.doctor import Finding
    from baker.upkeep.garbage import GarbageCollector
    from baker.upkeep.sweep import Swept

__all__ = ["Baker", "BuildOptions", "BuildRequest", "BuildResult"]
SHIPPED_BUNDLES = Path(__file__).resolve().parent.parent / "provisioners"  # in a checkout; installed bundles have entry points


class Baker:
    """One user's images, builds and machines."""

    def __init__(
        self,
        home: Home | None = None,
        *,
        sink: Sink | None = None,
        interaction: Interaction | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.env = os.environ if env is None else env
        self.home = home or Home.from_environment(self.env)
        self.sink = sink or Null()
        self.interaction = interaction

    def __enter__(self) -> Baker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if "services" in self.__dict__:
            self.catalog.close()

    @cached_property
    def services(self) -> Services:
        """The catalog, the stores and the builders. Nothing is opened before its first use."""
        from baker.build.services import open_services

        return open_services(self.home, self.sink, interaction=self.interaction, env=self.env, search=(SHIPPED_BUNDLES,))

    @property
    def catalog(self) -> Catalog:
        return self.services.catalog

    @property
    def store(self) -> BlobStore:
        return self.services.store

    @property
    def ledger(self) -> Ledger:
        return self.services.ledger

    @property
    def leases(self) -> Leases:
        return self.services.leases

    @property
    def layers(self) -> LayerStore:
        return self.services.layers

    @property
    def _garbage(self) -> GarbageCollector:
        from baker.upkeep.garbage import GarbageCollector

        return GarbageCollector(self.home, self.catalog, self.store, self.layers, self.leases)

    # -- templates ------------------------------------------------------------------------------------------------------------

    def load(
        self,
        path: str | Path,
        *,
        variables: Mapping[str, str] | None = None,
        var_files: Sequence[str | Path] = (),
        only: Sequence[str] = (),
        except_: Sequence[str] = (),
    ) -> list[Template]:
        """Load the templates in a file: one, or one for each combination of its matrix. TemplateError with every problem."""
        from baker.template.load import load

        return load(
            Path(path),
            variables=variables or {},
            var_files=[Path(p) for p in var_files],
            env=self.env,
            only=only,
            except_=except_,
            secret_key=self._secret_key,
            search=[SHIPPED_BUNDLES],
        )

    @property
    def _secret_key(self) -> bytes:
        from baker.core.secrets import catalog_key

        return catalog_key(self.home.data)

    def plan(self, template: Template) -> Plan | None:
        """Plan a build of `template`; None while its source is not on this host, because the keys depend on it."""
        from baker.plan.plan import make_plan
        from baker.sources.base import Context

        source = self.services.source(template.source)
        # only builders that publish resolve sources
        builder = self.services.builder(template.builder, None) if template.builder.publishes else None
        context = Context.for_peek(self.home, self.store, self.catalog, template.path.parent, builder)
        found = source.peek(template.source, context)
        return make_plan(template, found) if found else None

    def planned_image(self, plan: Plan) -> ImageRecord | None:
        """The image of the catalog that a build of `plan` would reuse."""
        return self.catalog.by_fingerprint(plan.fingerprint, name=plan.template.name, version=plan.template.version)

    def explain(self, plan: Plan, options: LayerOptions | None = None) -> list[Explained]:
        """Explain for each step whether a build would run it, and why, compared with the last build of the template's name."""
        from baker.layers.explain import explain
        from baker.plan.step_range import LayerOptions

        return explain(plan, options or LayerOptions(), self.layers.find, self.catalog.last_planned(plan.template.name), time.time())

    # -- builds ---------------------------------------------------------------------------------------------------------------

    def build(self, requests: Sequence[BuildRequest], *, parallel: int = 0, fail_fast: bool = True) -> list[BuildResult]:
        """Build templates, after their missing parent images. `parallel`: the number of concurrent builds; 0 for the number of processors.

        The result of a failed build has its error. TemplateError, UsageError, and NotFoundError for a parent image are raised before
        the first build; without `fail_fast` a NotFoundError is the result of the one build.
        """
        from baker.plan.graph import graph
        from baker.scheduler import run

        self._sweep_quietly()
        try:
            nodes = graph(self, requests, fail_fast=fail_fast)
        except TemplateError as error:
            self.sink.emit(TemplateRejected(problems=error.to_json()))
            raise
        by_key = {node.key: node for node in nodes}
        with run.Workers(self.sink) as workers:
            ended = run.run(nodes, self._build_node, workers, parallel=parallel or os.cpu_count() or 1, fail_fast=fail_fast)
        if any(end.finished is None or end.finished.status != "unchanged" for end in ended):
            self.collect_quietly()
        return [self._result(by_key[end.key], end) for end in ended]

    def build_here(self, request: BuildRequest, name: str) -> None:
        """Build the image `name` of a template in this process. Raises BakeError when it fails."""
        for template in self.load_request(request):
            if template.name == name:
                self._bake(template, request)
                return
        raise UsageError(f"{request.path} does not make an image {name!r}", code="usage.no-such-image-in-template")

    def _bake(self, template: Template, request: BuildRequest) -> None:
        from baker.build.recipe import bake
        from baker.machines.spec import with_accelerator

        bake(with_accelerator(template, request.options.accelerator), request.options, self.services)

    def _build_node(self, node: BuildNode) -> Ended:
        from baker.core.events import Memory, Tee
        from baker.plan.graph import Ended

        memory = Memory(only=BuildFinished)
        baker = Baker(self.home, sink=Tee(self.sink, memory), interaction=self.interaction, env=self.env)
        request = BuildRequest.from_json(node.request)
        exit_code, text, code = 0, "", ""
        try:
            with baker:
                baker._bake(node.template, request)
        except BakeError as error:
            exit_code, text, code = error.exit_code, str(error), error.code
        finished = memory.events[-1] if memory.events else None
        return Ended(node.key, exit_code, finished if isinstance(finished, BuildFinished) else None, text, code)

    def load_request(self, request: BuildRequest) -> list[Template]:
        """The templates that a request selects."""
        return self.load(request.path, variables=request.variables, var_files=request.var_files, only=request.only, except_=request.except_)

    def _result(self, node: BuildNode, end: Ended) -> BuildResult:
        finished = end.finished
        image = self.catalog.image(finished.image) if finished and finished.image else None
        status = "skipped" if end.skipped else finished.status if finished else "failed"
        return BuildResult(
            name=node.template.name,
            version=node.template.version,
            status=status,
            image=image,
            build_id=finished.build if finished else "",
            seconds=finished.seconds if finished else 0.0,
            error=end.error,
            exit_code=end.exit_code,
            code=end.code,
        )

    # -- images ---------------------------------------------------------------------------------------------------------------

    def disk(self, image: ImageRecord) -> Disk:
        """The image's disk in the store: a delta on the blobs of its ancestors. NotFoundError for an image without a disk."""
        from baker.artifacts.disk import stored

        return stored(image, self.store)

    @contextmanager
    def boot(
        self,
        reference: str,
        *,
        forwards: Sequence[Forward] = (),
        shape: Mapping[str, Any] | None = None,
        uri: str | None = None,
        username: str | None = None,
        timeout: float = 600.0,
    ) -> Iterator[Running]:
        """Start an ephemeral machine from an image; it is removed at the end. `shape` overrides fields of its MachineSpec."""
        from baker.sessions.ephemeral import boot

        image = self.catalog.resolve(reference)
        wanted = BootOptions(tuple(forwards), dict(shape or {}), uri, username, timeout)
        with boot(self.services, image, self.catalog.build(image.build).shape, wanted) as running:
            yield running

    @contextmanager
    def enter(self, reference: str, *, forwards: Sequence[Forward] = (), timeout: float = 60.0) -> Iterator[Running]:
        """Restore the machine after a step, `web@3` or `web@packages`, as an ephemeral machine; it is removed at the end."""
        from baker.sessions.ephemeral import restore

        layer, build = self.layer(reference)
        with restore(self.services, layer, build, BootOptions(tuple(forwards), timeout=timeout)) as running:
            yield running

    def layer(self, reference: str) -> tuple[Layer, BuildRecord]:
        """Find the layer `NAME@STEP`: after the step with this number or name, in the last build of the template NAME. NotFoundError when
        it was not kept."""
        from baker.layers.find import find

        return find(self.catalog, self.layers, reference)

    # -- explanations ---------------------------------------------------------------------------------------------------------

    def diff(self, before: str, after: str, *, times: bool = False) -> Comparison:
        """Compare two file trees. Each is an image, a layer (`web@3`, `layer:web@3`) or a running shell (`shell:ID`)."""
        from contextlib import ExitStack

        from baker.explain.diff import compare
        from baker.sessions.diff_sides import side

        with ExitStack() as stack:
            trees = [stack.enter_context(side(self.services, each)) for each in (before, after)]
            return compare(trees[0], trees[1], times=times)

    def test(self, request: BuildRequest, *, idempotent: bool = False) -> list[RepeatedChange]:
        """Build and verify an image without registering it. `idempotent`: run the steps twice, and return the changes of the second run."""
        from baker.build.test_run import test
        from baker.machines.spec import with_accelerator

        templates = self.load_request(request)
        if len(templates) != 1:
            names = ", ".join(template.name for template in templates)
            raise UsageError(
                f"{request.path} makes {len(templates)} images ({names}), but bake test takes one",
                hint="choose one with --only",
                code="usage.one-image-only",
            )
        template = with_accelerator(templates[0], request.options.accelerator)
        return test(template, request.options, self.services, idempotent=idempotent)

    def take(self, shell: str) -> AbstractContextManager[CommitSource]:
        """Copy the disk of a running shell, for `commit`. The shell keeps running."""
        from baker.sessions.commit import take

        return take(self.services, shell)

    def commit(self, origin: CommitSource, options: CommitOptions) -> ImageRecord:
        """Make an image from a machine that was changed by hand."""
        from baker.sessions.commit import commit

        return commit(origin, options)

    def why(self, reference: str, path: str) -> Reason:
        """Find the build and step that put a path into an image. NotFoundError when the path never existed."""
        from baker.explain.why import why

        return why(self.catalog, self.store, self.catalog.resolve(reference), path)

    def why_package(self, reference: str, name: str) -> PackageReason:
        """Find the build and step that installed a package in an image."""
        from baker.explain.why import why_package

        return why_package(self.catalog, self.store, self.catalog.resolve(reference), name)

    def outdated(self, references: Sequence[str] = (), fetch: Callable[[str], bytes] | None = None) -> list[Examined]:
        """Find newer inputs and parents of images; by default, of the newest image of each name."""
        from baker.lockfile.outdated import outdated

        return outdated(self.services, references, fetch)

    def audit(self, reference: str, checkers: Sequence[Checker] = ()) -> Story:
        """Collect everything that is recorded about an image, with the results of the built-in checks and of `checkers`."""
        from baker.trust.audit.attestations import checker
        from baker.trust.audit.story import gather

        return gather(self.catalog, self.store, self.catalog.resolve(reference), (checker(self.trust), *checkers))

    def export(
        self,
        reference: str,
        format: str,  # noqa: A002 - Packer's word
        path: str | Path,
        *,
        compress: str = "none",
        overwrite: bool = False,  # noqa: A002 - Packer's word
    ) -> Path:
        """Write an image to one file that works without bake. A failed export leaves no file."""
        from baker.publish.export import export

        image = self.catalog.resolve(reference)
        return export(self.store, image, format, Path(path), compress=compress, report=Reporter(self.sink), overwrite=overwrite)

    def publish(self, reference: str, to: str, options: PublishOptions) -> tuple[Published, ...]:
        """Publish an image. `to`: a kind of target, such as "ami". Nothing happens where it is published already, unless that is forced."""
        from baker.publish.service import publish

        return publish(self.services, self.catalog.resolve(reference), to, options)

    def remove(self, references: Sequence[str], *, force: bool = False) -> list[ImageRecord]:
        """Remove images, children before parents. The records of their builds remain. BusyError when one is the parent of another image."""
        from baker.publish.withdraw import remove

        removed = remove([self.catalog.resolve(each) for each in references], self.catalog, self.services.builder, force=force)
        self._garbage.drop_layers()
        self._garbage.collect_orphans()
        return removed

    def rebuild(self, reference: str, *, secrets: Mapping[str, str] | None = None, uri: str | None = None) -> RebuildOutcome:
        """Rebuild an image from its record alone, compare, record the level reached, and discard the result."""
        from baker.rebuild.rebuild import Request, rebuild_and_record

        image = self.catalog.resolve(reference)
        return rebuild_and_record(Request(image, self.catalog.build_of(image), secrets or {}, self._secret_key, uri), self.services)

    @property
    def archives(self) -> Archives:
        """Exports images with all their records to archives, and imports them."""
        from baker.publish.archive.service import Archives

        return Archives(self.services, self.trust.keys)

    # -- evidence -------------------------------------------------------------------------------------------------------------

    @property
    def trust(self) -> TrustContext:
        """Records, blobs and keys, for signatures and attestations."""
        from baker.trust.attest.signing import TrustContext

        return TrustContext.of(self.home, self.catalog, self.store, self.env, self.leases)

    # -- upkeep ---------------------------------------------------------------------------------------------------------------

    def sweep(self, *, kept: bool = False, dry_run: bool = False) -> list[Swept]:
        """Clean up after killed builds, and remove blobs that nothing refers to. `kept`: also machines that a user asked to keep."""
        from baker.upkeep.sweep import Swept, sweep

        swept = sweep(self.home, self.catalog, Reporter(self.sink), kept=kept, dry_run=dry_run)
        if not dry_run:
            self.layers.clean()
        return swept + [Swept("", "blob", orphan.digest) for orphan in self._garbage.collect_orphans(dry_run=dry_run)]

    def usage(self) -> list[Used]:
        """Disk usage by item; each byte is counted once."""
        from baker.upkeep.disk_usage import usage

        return usage(self.home, self.catalog, self.store, self.layers)

    def collect(self, *, budget: int | None = None, max_age: float | None = None, dry_run: bool = False) -> list[Collected]:
        """Remove layers and downloads that were not used for `max_age` seconds, then the least valuable until the rest takes at most
        `budget` bytes (None: BAKE_CACHE_SIZE, or 20 GiB); then remove blobs that nothing refers to."""
        from baker.build.downloads import DIRECTORY
        from baker.proxy.store import Store
        from baker.upkeep.cache_budget import Collected, collect, default_budget

        wanted = default_budget(self.env) if budget is None else budget
        http = Store(self.home.cache / DIRECTORY)
        gone = collect(self.layers, http, now=time.time(), budget=wanted, max_age=max_age, dry_run=dry_run)
        layers = {item.id for item in gone if item.kind == "layer"}
        if not dry_run:
            self._garbage.drop_layers()
        orphans = self._garbage.collect_orphans(without=layers, dry_run=dry_run)
        return gone + [Collected("blob", each.digest, each.digest, each.size, "nothing refers to it") for each in orphans]

    def collect_quietly(self) -> None:
        """Reduce the cache to its budget. A failure is only a warning."""
        try:
            self.collect()
        except (BakeError, OSError) as error:
            Reporter(self.sink).warn(f"cannot reduce the cache to its budget: {error}")

    def _sweep_quietly(self) -> None:
        if self.ledger.dead_builds(kept=False):
            from baker.upkeep.sweep import sweep

            swept = sweep(self.home, self.catalog, Reporter(self.sink))
            Reporter(self.sink).info(f"cleaned up {len(swept)} resources of killed builds")

    def doctor(self) -> list[Finding]:
        """Check this host for everything that bake needs, with a fix for each finding."""
        from baker.upkeep.doctor import check

        return check(self.home, self.env)
