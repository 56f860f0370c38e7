"""Write a disk to an EBS snapshot through the EBS direct APIs, without an import service, a bucket or an instance.

A snapshot consists of blocks of 512 KiB, each sent with its SHA-256. At the end AWS gets the SHA-256 of the blocks' digests in the order of
their numbers (aggregation method LINEAR). A block that is not written reads as zeros, or as in the parent snapshot if there is one; with a
parent, a block that has become zeros must therefore be written
(https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html).
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
from baker.aws.rate_limit import RateLimiter
from baker.aws.session import Aws
from baker.core.clock import Clock
from baker.core.events import Reporter
from baker.disks.blocks import candidates
from baker.disks.raw import RawReader

BLOCK = 512 << 10
GIB = 1 << 30
ZEROS = bytes(BLOCK)
THREADS, FEW_THREADS = 64, 2
WORTH_IT = 1.2  # the speed-up (blocks per second) that justifies more threads
TIMEOUT_MINUTES = 24 * 60  # AWS cancels an unfinished snapshot that gets no block for so long
PATIENCE_SECONDS = 300.0  # how long one block may be throttled
INVISIBLE_SECONDS, LOOK_AGAIN_SECONDS = 60.0, 1.0  # how long a snapshot may be unknown after its start
REPORT_SECONDS = 0.2
COMPLETED_IN_A_ROW, SURE_SECONDS = 3, 0.1  # several answers, because replicas of AWS's state may differ for a moment
COMPLETION_SECONDS = 3600.0
BROKEN = frozenset({"error", "recoverable", "recovering"})
THROTTLED = frozenset({"RequestThrottledException", "ThrottlingException", "RequestLimitExceeded", "Throttling"})


class Records(Protocol):
    """The record of the blocks that AWS has; see baker.aws.upload_checkpoint."""

    def acknowledged(self) -> dict[int, bytes]: ...
    def acknowledge(self, index: int, digest: bytes) -> None: ...


@dataclass(frozen=True)
class Blocks:
    """The blocks of a disk, compared with the disk in the parent snapshot if there is one (`below`)."""

    disk: RawReader
    below: RawReader | None = None

    def indices(self) -> list[int]:
        """The numbers of the blocks that may have to be sent, from the allocation maps of the disks."""
        return list(candidates(self.disk.extents, BLOCK, self.below.extents if self.below else None))

    def changed(self, index: int) -> bytes | None:
        """The bytes of a block, or None when the snapshot has them without a write."""
        data = _block(self.disk, index)
        if self.below is None or index * BLOCK >= self.below.size:
            return data if data != ZEROS else None
        return data if data != _block(self.below, index) else None


def _block(disk: RawReader, index: int) -> bytes:
    data = disk.pread(index * BLOCK, BLOCK)
    return data if len(data) == BLOCK else data + bytes(BLOCK - len(data))


@dataclass(frozen=True)
class Start:
    """The parameters for StartSnapshot."""

    region: str
    size: int  # of the disk, in bytes
    token: str  # equal for a repeated request, different for any other
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    kms_key: str = ""


@dataclass(frozen=True)
class Sent:
    """The numbers of blocks in an upload."""

    looked_at: int  # read from the disk
    changed: int  # different from the parent snapshot
    sent: int  # sent by this process
    digests: Mapping[int, bytes] = field(repr=False, default_factory=dict)  # of the changed blocks


def start(aws: Aws, wanted: Start) -> str:
    """Start a snapshot and return its ID; a repeated request returns the ID of the first. With a parent, its encryption applies."""
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
    """`size` bytes in whole GiB, rounded up: the unit of volume sizes. At least 1."""
    return max(1, -(-size // GIB))


def send(
    aws: Aws, region: str, snapshot: str, blocks: Blocks, records: Records, *, report: Reporter, clock: Clock, threads: int = THREADS
) -> Sent:
    """Write the changed blocks to a pending snapshot. A block that `records` has with the same digest is not sent again.

    AwsError when AWS refuses a block. The first error stops all threads, each after its present block.
    """
    indices = blocks.indices()
    sender = _Sender(BlockWriter(aws, region, snapshot, clock), blocks, records, clock=clock, total=len(indices))
    sender.run(indices, threads, report)
    return Sent(len(indices), len(sender.digests), sender.sent, sender.digests)


class ThreadScaler:
    """Decide how many threads send blocks.

    An upload to a distant region is limited by latency, so more threads make it faster. An upload that is limited by this host's processor
    gets slower with more threads.
    """

    def __init__(self, most: int, first: int = FEW_THREADS) -> None:
        self.most = most
        self.size = min(first, most)
        self._best = 0.0
        self._last = (0, 0.0)

    def more(self, done: int, now: float) -> int:
        """The number of threads to add when `done` blocks are done: as many as there are, if the last increase made a difference."""
        (before, then), self._last = self._last, (done, now)
        rate = (done - before) / (now - then) if then and now > then else 0.0
        if rate <= self._best * WORTH_IT or self.size >= self.most:
            return 0
        added = min(self.size, self.most - self.size)
        self._best, self.size = rate, self.size + added
        return added


class _Sender:
    """The threads of one upload and their shared state."""

    def __init__(self, writer: BlockWriter, blocks: Blocks, records: Records, *, clock: Clock, total: int) -> None:
        self._writer = writer
        self.blocks = blocks
        self.records = records
        self.clock = clock
        self.rate_limit = RateLimiter(clock)
        self.before = records.acknowledged()
        self.digests: dict[int, bytes] = {}
        self.done = self.sent = 0
        self.total = total
        self._started = clock.now()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, indices: Iterable[int], threads: int, report: Reporter) -> None:
        """Send all blocks, with few threads at first, and with more for as long as that makes the upload faster."""
        todo, scaler = iter(indices), ThreadScaler(threads)
        with ThreadPoolExecutor(threads, "ebs") as pool:
            futures = {pool.submit(self._work, todo) for _ in range(min(scaler.size, self.total))}
            try:
                while futures:
                    ended, futures = wait(futures, REPORT_SECONDS)
                    for future in ended:
                        future.result()
                    more = scaler.more(self.done, self.clock.now()) if futures else 0
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
            self.rate_limit.wait()
            try:
                self._writer.put(index, data, digest)
            except AwsError as error:
                now = self.clock.now()
                if error.aws_code in THROTTLED and now - begun < PATIENCE_SECONDS and not self._stop.is_set():
                    self.rate_limit.throttled()
                elif error.missing and now - self._started < INVISIBLE_SECONDS and not self._stop.is_set():
                    self.clock.sleep(LOOK_AGAIN_SECONDS)
                else:
                    raise
            else:
                self.rate_limit.succeeded()
                return


def linear_checksum(digests: Mapping[int, bytes]) -> str:
    """Base64 of the SHA-256 of the concatenated raw digests of the written blocks, in the order of their numbers."""
    return base64.b64encode(hashlib.sha256(b"".join(digests[index] for index in sorted(digests))).digest()).decode()


def complete(aws: Aws, region: str, snapshot: str, digests: Mapping[int, bytes], *, clock: Clock) -> None:
    """Complete a snapshot that has all its blocks, and wait until it is available. AwsError when it fails."""
    whole: dict[str, Any] = {"ChangedBlocksCount": len(digests)}
    if digests:
        whole |= {"Checksum": linear_checksum(digests), "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    try:
        with translated(f"completing {snapshot} in {region}"):
            aws.client("ebs", region).complete_snapshot(SnapshotId=snapshot, **whole)
    except AwsError as error:
        if state(aws, region, snapshot) != "completed":  # completed: the first request succeeded, but its answer was lost
            raise error
    wait_completed(aws, region, snapshot, clock=clock)


def state(aws: Aws, region: str, snapshot: str) -> str:
    """The state of a snapshot (pending, completed, error, ...), or "" when it does not exist."""
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
        raise AwsError(
            f"there is no snapshot {snapshot} in {region}",
            aws_code="InvalidSnapshot.NotFound",
            hint="check its ID and the region",
            code="aws.not-found",
        )
    return dict(found[0])


def wait_completed(aws: Aws, region: str, snapshot: str, *, clock: Clock, timeout: float = COMPLETION_SECONDS) -> None:
    """Wait until several answers in a row say "completed". AwsError when the snapshot fails, or after `timeout` seconds."""

    def look() -> bool | None:
        found = _describe(aws, region, snapshot)
        if found["State"] in BROKEN:
            why = found.get("StateMessage") or found["State"]
            raise AwsError(f"the snapshot {snapshot} in {region} failed: {why}", aws_code="SnapshotFailed", code="aws.snapshot-failed")
        return True if found["State"] == "completed" else None

    def sure() -> bool | None:
        for number in range(COMPLETED_IN_A_ROW):
            if number:
                clock.sleep(SURE_SECONDS)
            if look() is None:
                return None
        return True

    what = f"the snapshot {snapshot} in {region} is not completed"
    waiter.wait(sure, what, timeout=timeout, clock=clock, first=SURE_SECONDS, longest=5.0)
