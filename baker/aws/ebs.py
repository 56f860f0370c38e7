"""A disk as an EBS snapshot, through the EBS direct APIs: no import service, no bucket, no instance.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html: blocks of 512 KiB, each with its SHA-256; at the end the
SHA-256 over the blocks' digests in the order of their numbers ("LINEAR"). What is not written reads as zeros, or as the parent snapshot
does where one is named: with a parent a block that became zeros has to be written.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from baker.aws import waiter
from baker.aws.blocks import BlockWriter
from baker.aws.errors import AwsError, translated
from baker.aws.rate_limit import Pace
from baker.aws.session import Aws
from baker.core.clock import Clock
from baker.core.events import Reporter
from baker.disks.blocks import candidates
from baker.disks.raw import RawReader

BLOCK = 512 << 10
GIB = 1 << 30
ZEROS = bytes(BLOCK)
THREADS, FEW_THREADS = 64, 2
WORTH_IT = 1.2  # times as many blocks per second
TIMEOUT_MINUTES = 24 * 60  # without a new block for so long, AWS gives an unfinished snapshot up
PATIENCE_SECONDS = 300.0  # with one block that AWS says it gets too fast
INVISIBLE_SECONDS, LOOK_AGAIN_SECONDS = 60.0, 1.0  # how long a snapshot may be unknown after its start
REPORT_SECONDS = 0.2
COMPLETED_IN_A_ROW, SURE_SECONDS = 3, 0.1  # an answer may come from a replica that is ahead or behind
COMPLETION_SECONDS = 3600.0
BROKEN = frozenset({"error", "recoverable", "recovering"})
TOO_FAST = frozenset({"RequestThrottledException", "ThrottlingException", "RequestLimitExceeded", "Throttling"})


class Records(Protocol):
    """Where it is noted which blocks AWS has: see baker.aws.upload_checkpoint."""

    def acknowledged(self) -> dict[int, bytes]: ...
    def acknowledge(self, index: int, digest: bytes) -> None: ...


@dataclass(frozen=True)
class Blocks:
    """A disk in blocks, and the disk that the parent snapshot holds."""

    disk: RawReader
    below: RawReader | None = None

    def indices(self) -> list[int]:
        """The blocks that may have to be sent, told from the maps of the disks."""
        return list(candidates(self.disk.extents, BLOCK, self.below.extents if self.below else None))

    def changed(self, index: int) -> bytes | None:
        """The bytes of a block; None where the snapshot reads so without it."""
        data = _block(self.disk, index)
        if self.below is None or index * BLOCK >= self.below.size:
            return data if data != ZEROS else None
        return data if data != _block(self.below, index) else None


def _block(disk: RawReader, index: int) -> bytes:
    data = disk.pread(index * BLOCK, BLOCK)
    return data if len(data) == BLOCK else data + bytes(BLOCK - len(data))


@dataclass(frozen=True)
class Start:
    """What StartSnapshot is asked for. `size` of the disk in bytes; `token`: the same for the same request, and for no other."""

    region: str
    size: int
    token: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    kms_key: str = ""


@dataclass(frozen=True)
class Sent:
    """What an upload took: blocks of the disk that were looked at, that differ, that went over the line this time."""

    looked_at: int
    changed: int
    sent: int
    digests: Mapping[int, bytes] = field(repr=False, default_factory=dict)


def start(aws: Aws, wanted: Start) -> str:
    """The id of a new snapshot, or of the one that the same request made before. Encryption comes from the parent where there is one."""
    more: dict[str, Any] = {}
    if wanted.parent:
        more["ParentSnapshotId"] = wanted.parent
    elif wanted.kms_key:
        more |= {"Encrypted": True, "KmsKeyArn": wanted.kms_key}
    with translated(f"starting a snapshot in {wanted.region}"):
        answer = aws.client("ebs", wanted.region).start_snapshot(
            VolumeSize=gib(wanted.size),
            Description=wanted.description[:255],
            ClientToken=wanted.token,
            Timeout=TIMEOUT_MINUTES,
            Tags=[{"Key": key, "Value": value} for key, value in wanted.tags.items()],
            **more,
        )
    return str(answer["SnapshotId"])


def gib(size: int) -> int:
    """`size` bytes in whole GiB, as volumes have them."""
    return max(1, -(-size // GIB))


def send(
    aws: Aws, region: str, snapshot: str, blocks: Blocks, records: Records, *, report: Reporter, clock: Clock, threads: int = THREADS
) -> Sent:
    """Write what differs of `blocks` to a pending snapshot. What `records` has as acknowledged with the same digest is not sent again.

    AwsError when AWS refuses a block. The first error stops all threads; what they have in their hands is finished."""
    indices = blocks.indices()
    sender = _Sender(BlockWriter(aws, region, snapshot, clock), blocks, records, clock=clock, total=len(indices))
    sender.run(indices, threads, report)
    return Sent(len(indices), len(sender.digests), sender.sent, sender.digests)


class Crew:
    """How many threads send. What limits an upload to a distant region is the time that each block is on its way: more threads make it
    faster. Where it is this host's own processor, more threads only get into each other's way."""

    def __init__(self, most: int, first: int = FEW_THREADS) -> None:
        self.most = most
        self.size = min(first, most)
        self._best = 0.0
        self._last = (0, 0.0)

    def more(self, done: int, now: float) -> int:
        """How many threads to add, `done` blocks being done: as many as there are, if the last that came were worth it."""
        (before, then), self._last = self._last, (done, now)
        rate = (done - before) / (now - then) if then and now > then else 0.0
        if rate <= self._best * WORTH_IT or self.size >= self.most:
            return 0
        added = min(self.size, self.most - self.size)
        self._best, self.size = rate, self.size + added
        return added


class _Sender:
    """The threads of one upload and what they share."""

    def __init__(self, writer: BlockWriter, blocks: Blocks, records: Records, *, clock: Clock, total: int) -> None:
        self._writer = writer
        self.blocks = blocks
        self.records = records
        self.clock = clock
        self.pace = Pace(clock)
        self.before = records.acknowledged()
        self.digests: dict[int, bytes] = {}
        self.done = self.sent = 0
        self.total = total
        self._started = clock.now()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, indices: Iterable[int], threads: int, report: Reporter) -> None:
        """Handle all blocks: by a few threads at first, by more for as long as that makes it faster."""
        todo, crew = iter(indices), Crew(threads)
        with ThreadPoolExecutor(threads, "ebs") as pool:
            futures = {pool.submit(self._work, todo) for _ in range(min(crew.size, self.total))}
            try:
                while futures:
                    ended, futures = wait(futures, REPORT_SECONDS)
                    for future in ended:
                        future.result()
                    more = crew.more(self.done, self.clock.now()) if futures else 0
                    futures |= {pool.submit(self._work, todo) for _ in range(more)}
                    report.progress("upload", self.done * BLOCK, self.total * BLOCK)
            finally:
                self._stop.set()

    def _work(self, todo: Iterator[int]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    index = next(todo, None)
                if index is None:
                    return
                self._handle(index)
        except BaseException:
            self._stop.set()
            raise

    def _handle(self, index: int) -> None:
        data = self.blocks.changed(index)
        sent = False
        if data is not None:
            digest = hashlib.sha256(data).digest()
            if self.before.get(index) != digest:
                self._put(index, data, digest)
                self.records.acknowledge(index, digest)
                sent = True
            self.digests[index] = digest
        with self._lock:
            self.done += 1
            self.sent += sent

    def _put(self, index: int, data: bytes, digest: bytes) -> None:
        begun = self.clock.now()
        while True:
            self.pace.wait()
            try:
                self._writer.put(index, data, digest)
            except AwsError as error:
                now = self.clock.now()
                if error.aws_code in TOO_FAST and now - begun < PATIENCE_SECONDS and not self._stop.is_set():
                    self.pace.too_fast()
                elif error.missing and now - self._started < INVISIBLE_SECONDS and not self._stop.is_set():
                    self.clock.sleep(LOOK_AGAIN_SECONDS)
                else:
                    raise
            else:
                self.pace.fine()
                return


def linear_checksum(digests: Mapping[int, bytes]) -> str:
    """Base64 of the SHA-256 over the raw digests of the written blocks, in the order of their numbers."""
    return base64.b64encode(hashlib.sha256(b"".join(digests[index] for index in sorted(digests))).digest()).decode()


def complete(aws: Aws, region: str, snapshot: str, digests: Mapping[int, bytes], *, clock: Clock) -> None:
    """Seal a snapshot that has all its blocks, and wait until it is there. AwsError when it ends as an error."""
    whole: dict[str, Any] = {"ChangedBlocksCount": len(digests)}
    if digests:
        whole |= {"Checksum": linear_checksum(digests), "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    try:
        with translated(f"completing {snapshot} in {region}"):
            aws.client("ebs", region).complete_snapshot(SnapshotId=snapshot, **whole)
    except AwsError as error:
        if state(aws, region, snapshot) != "completed":  # an answer was lost, and to the second request it was complete already
            raise error
    wait_completed(aws, region, snapshot, clock=clock)


def state(aws: Aws, region: str, snapshot: str) -> str:
    """pending, completed, error, ...; "" for none that is ours."""
    try:
        return str(_describe(aws, region, snapshot)["State"])
    except AwsError as error:
        if error.missing:
            return ""
        raise


def _describe(aws: Aws, region: str, snapshot: str) -> dict[str, Any]:
    with translated(f"the snapshot {snapshot} in {region}"):
        found = aws.client("ec2", region).describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    if not found:
        raise AwsError(f"there is no snapshot {snapshot} in {region}", aws_code="InvalidSnapshot.NotFound")
    return dict(found[0])


def wait_completed(aws: Aws, region: str, snapshot: str, *, clock: Clock, timeout: float = COMPLETION_SECONDS) -> None:
    """Until several answers in a row say "completed". AwsError for a snapshot that ends as an error."""

    def look() -> bool | None:
        found = _describe(aws, region, snapshot)
        if found["State"] in BROKEN:
            why = found.get("StateMessage") or found["State"]
            raise AwsError(f"the snapshot {snapshot} in {region} failed: {why}", aws_code="SnapshotFailed")
        return True if found["State"] == "completed" else None

    def sure() -> bool | None:
        for number in range(COMPLETED_IN_A_ROW):
            if number:
                clock.sleep(SURE_SECONDS)
            if look() is None:
                return None
        return True

    waiter.wait(sure, f"the snapshot {snapshot} in {region}", timeout=timeout, clock=clock, first=SURE_SECONDS, longest=5.0)
