"""One disk of this host as a finished snapshot in one region: from scratch, as a difference to one that is there, or gone on with."""

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
    """A snapshot that is there already, and the disk of this host that it holds."""

    snapshot: str
    image: str  # id
    disk: Disk


@dataclass(frozen=True)
class Request:
    """What is to become a snapshot, and where."""

    region: str
    disk: Disk
    ticket: Mapping[str, str]  # what has to be the same for an upload to be gone on with
    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_key: str = ""
    bases: tuple[Base, ...] = ()  # encrypted alike


@dataclass(frozen=True)
class Uploaded:
    """A completed snapshot. Numbers of blocks: of the whole disk that may hold something, of those that differ from the base, of those
    that this process sent."""

    snapshot: str
    base: str = ""
    looked_at: int = 0
    changed: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Uploader:
    """One upload with what it needs."""

    aws: Aws
    journal: UploadCheckpoint
    resources: Resources
    report: Reporter
    clock: Clock
    threads: int = ebs.THREADS

    def upload(self, request: Request) -> Uploaded:
        """Make the snapshot. UnreachableError and being killed leave what was sent for the next time; `resources` has the snapshot."""
        state = self._earlier(request)
        if state is not None and ebs.state(self.aws, request.region, state.target) == "completed":
            return Uploaded(state.target, state.base)
        with ExitStack() as stack:
            disk = stack.enter_context(open_raw(request.disk))
            if state is not None:
                self.report.info(f"going on with {state.target} in {request.region}: {len(self.journal.acknowledged())} blocks are there")
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
        """The upload of the same that did not end, if AWS still waits for its blocks or has them all."""
        state = self.journal.load()
        if state is None or not state.target or dict(request.ticket) != state.ticket or state.run != self.resources.run:
            return None
        if state.base and state.base not in {base.snapshot for base in request.bases}:
            return None
        return state if ebs.state(self.aws, request.region, state.target) in ("pending", "completed") else None

    def _best(self, stack: ExitStack, disk: RawReader, request: Request) -> tuple[Base | None, RawReader | None]:
        """What to send only the difference to: where the maps of the disks say that the least is to be looked at."""
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
        """A new snapshot, on record before its first block."""
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
            self.report.warn(f"everything is sent, not only what {base.snapshot} does not have: {error.message}")
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
