"""Upload a disk as a snapshot in one region: completely, as the difference to an existing snapshot, or resuming an earlier upload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from baker.aws import ebs
from baker.aws.errors import AwsError
from baker.aws.resources import BUILD_TAG, create
from baker.aws.session import Aws
from baker.aws.upload_checkpoint import State, UploadCheckpoint
from baker.core.clock import Clock
from baker.core.events import Reporter
from baker.core.model import Disk
from baker.core.resources import Resources
from baker.disks.blocks import candidates
from baker.disks.raw import RawReader, open_raw


@dataclass(frozen=True)
class Base:
    """An existing snapshot, and the disk on this host that has its content."""

    snapshot: str
    image: str  # the ID of the image
    disk: Disk


@dataclass(frozen=True)
class Request:
    """One snapshot to make from a disk."""

    region: str
    disk: Disk
    ticket: Mapping[str, str]  # an earlier upload is resumed only if its ticket is equal
    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_key: str = ""
    bases: tuple[Base, ...] = ()  # encrypted with the same key


@dataclass(frozen=True)
class Uploaded:
    """A completed snapshot."""

    snapshot: str
    base: str = ""  # the snapshot that it is a difference to
    looked_at: int = 0  # blocks that were read, because they may differ from the base
    changed: int = 0  # blocks that do differ
    sent: int = 0  # blocks that this process sent


@dataclass(frozen=True)
class Uploader:
    """Uploads, with everything that they need."""

    aws: Aws
    journal: UploadCheckpoint
    resources: Resources
    report: Reporter
    clock: Clock
    threads: int = ebs.THREADS

    def upload(self, request: Request) -> Uploaded:
        """Make the snapshot. After an UnreachableError or a kill, the next upload resumes; `resources` tracks the snapshot."""
        state = self._earlier(request)
        if state is not None and ebs.state(self.aws, request.region, state.target) == "completed":
            return Uploaded(state.target, state.base)
        with ExitStack() as stack:
            disk = stack.enter_context(open_raw(request.disk))
            if state is not None:
                count = len(self.journal.acknowledged())
                self.report.info(f"resuming the upload to {state.target} in {request.region}: {count} blocks are uploaded already")
                below = _opened(stack, next((base for base in request.bases if base.snapshot == state.base), None))
            else:
                base, below = self._best(stack, disk, request)
                state = self._begin(request, base)
                below = below if state.base else None
            sent = ebs.send(
                self.aws,
                request.region,
                state.target,
                ebs.Blocks(disk, below),
                self.journal,
                report=self.report,
                clock=self.clock,
                threads=self.threads,
            )
        ebs.complete(self.aws, request.region, state.target, sent.digests, clock=self.clock)
        return Uploaded(state.target, state.base, sent.looked_at, sent.changed, sent.sent)

    def _earlier(self, request: Request) -> State | None:
        """The state of an unfinished upload with the same ticket, if its snapshot is still pending or has been completed."""
        state = self.journal.load()
        if state is None or not state.target or dict(request.ticket) != state.ticket or state.run != self.resources.run:
            return None
        if state.base and state.base not in {base.snapshot for base in request.bases}:
            return None
        return state if ebs.state(self.aws, request.region, state.target) in ("pending", "completed") else None

    def _best(self, stack: ExitStack, disk: RawReader, request: Request) -> tuple[Base | None, RawReader | None]:
        """The base with the fewest blocks to read, judged by the allocation maps of the disks, and its open disk; (None, None) for none."""
        best: tuple[int, Base | None, RawReader | None] = (_count(disk), None, None)
        for base in request.bases:
            if ebs.state(self.aws, request.region, base.snapshot) != "completed":
                continue
            below = _opened(stack, base)
            if below is None or ebs.gib(below.size) > ebs.gib(disk.size):
                continue
            count = _count(disk, below)
            if count < best[0]:
                best = (count, base, below)
        return best[1], best[2]

    def _begin(self, request: Request, base: Base | None) -> State:
        """Start a new snapshot. Its state is on disk before the first block is sent."""
        before = self.journal.load()
        attempt = before.attempt + 1 if before is not None and before.run == self.resources.run else 0
        if attempt:
            self.resources.release("ami:snapshot", region=request.region)
        state = State(dict(request.ticket), self.resources.run, attempt, base.snapshot if base else "", base.image if base else "")
        self.journal.begin(state)
        wanted = ebs.Start(
            region=request.region,
            size=request.disk.virtual_size,
            token=f"{state.run}-{request.region}-{attempt}-{state.base}"[:64],
            description=request.description,
            tags={**request.tags, BUILD_TAG: state.run},
            parent=state.base,
            kms_key=request.kms_key,
        )
        try:
            target = create(
                self.resources,
                self.aws,
                "ami:snapshot",
                region=request.region,
                name=request.name,
                action=lambda: ebs.start(self.aws, wanted),
            )
        except AwsError as error:
            if base is None or not (error.missing or error.aws_code == "ValidationException"):
                raise
            self.report.warn(f"uploading all blocks instead of the difference to {base.snapshot}: {error.message}")
            return self._begin(request, None)
        state = replace(state, target=target)
        self.journal.save(state)
        return state


def _opened(stack: ExitStack, base: Base | None) -> RawReader | None:
    return stack.enter_context(open_raw(base.disk)) if base is not None else None


def _count(disk: RawReader, below: RawReader | None = None) -> int:
    return sum(1 for _ in _candidates(disk, below))


def _candidates(disk: RawReader, below: RawReader | None) -> Iterator[int]:
    return candidates(disk.extents, ebs.BLOCK, below.extents if below else None)
