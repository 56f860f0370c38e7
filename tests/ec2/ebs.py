"""EBS direct APIs, as https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html has them.

Not moto's: blocks are 512 KiB, checksums are checked, the bytes go into a sparse file, and an upload is one pwrite away from the socket.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from typing import Any
from urllib.parse import parse_qs, unquote

from moto.ec2.models import ec2_backends

from tests.ec2.asked import Asked
from tests.ec2.blocks import BLOCK, GIB, Blocks
from tests.ec2.images import kms_key
from tests.ec2.refusals import START, Refused, answer, answer_json
from tests.ec2.snapshots import StrictSnapshot
from tests.ec2.world import ACCOUNT, world

PATHS = (
    ("POST", re.compile(r"/snapshots$"), "StartSnapshot"),
    ("POST", re.compile(r"/snapshots/completion/(?P<SnapshotId>[^/]+)$"), "CompleteSnapshot"),
    ("PUT", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>\d+)$"), "PutSnapshotBlock"),
    ("GET", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>\d+)$"), "GetSnapshotBlock"),
    ("GET", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks$"), "ListSnapshotBlocks"),
    ("GET", re.compile(r"/snapshots/(?P<SecondSnapshotId>[^/]+)/changedblocks$"), "ListChangedBlocks"),
)
HEADERS = {
    "HTTP_X_AMZ_DATA_LENGTH": "DataLength", "HTTP_X_AMZ_PROGRESS": "Progress", "HTTP_X_AMZ_CHECKSUM": "Checksum",
    "HTTP_X_AMZ_CHECKSUM_ALGORITHM": "ChecksumAlgorithm", "HTTP_X_AMZ_CHANGEDBLOCKSCOUNT": "ChangedBlocksCount",
    "HTTP_X_AMZ_CHECKSUM_AGGREGATION_METHOD": "ChecksumAggregationMethod",
}  # fmt: skip
QUERY = {"blockToken": "BlockToken", "firstSnapshotId": "FirstSnapshotId", "pageToken": "NextToken", "maxResults": "MaxResults",
         "startingBlockIndex": "StartingBlockIndex"}  # fmt: skip
NUMBERS = ("BlockIndex", "DataLength", "Progress", "ChangedBlocksCount", "MaxResults", "StartingBlockIndex")
PAGE = 10_000


def parse(environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(action, parameters) of a request; a block's data is not among them. Refused for what is no path of EBS."""
    path, method = unquote(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
    for verb, pattern, action in PATHS:
        if verb == method and (found := pattern.match(path)):
            parameters: dict[str, Any] = found.groupdict()
            parameters |= {name: environ[header] for header, name in HEADERS.items() if header in environ}
            parameters |= {QUERY[name]: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items() if name in QUERY}
            parameters |= {name: int(parameters[name]) for name in NUMBERS if name in parameters}
            if action == "StartSnapshot":
                parameters |= json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            return action, parameters
    raise Refused("UnknownOperationException", f"{method} {path}", 404)


def handle(asked: Asked, environ: dict[str, Any], start: START) -> list[bytes]:
    """One request. Refused when it is not to be."""
    if asked.action == "PutSnapshotBlock":
        return _put(asked, environ, start)
    with world().lock:
        world().settle()
        return {
            "StartSnapshot": _start, "CompleteSnapshot": _complete, "GetSnapshotBlock": _get, "ListSnapshotBlocks": _list,
            "ListChangedBlocks": _changed,
        }[asked.action](asked, start)  # fmt: skip


def _find(asked: Asked, name: str = "SnapshotId") -> StrictSnapshot:
    found = ec2_backends[ACCOUNT][asked.region].snapshots.get(asked.parameters[name])
    if found is None:
        raise Refused(
            "ResourceNotFoundException", f"The snapshot '{asked.parameters[name]}' does not exist.", 404, Reason="SNAPSHOT_NOT_FOUND"
        )
    return found


def _invalid(message: str, reason: str = "INVALID_PARAMETER_VALUE") -> Refused:
    return Refused("ValidationException", message, 400, Reason=reason)


def _start(asked: Asked, start: START) -> list[bytes]:
    wanted, backend = asked.parameters, ec2_backends[ACCOUNT][asked.region]
    size, parent = wanted["VolumeSize"], _parent(asked)
    if not 1 <= size <= 65536 or (parent and size < parent.volume.size):
        raise _invalid(f"VolumeSize {size} GiB is out of range", "INVALID_VOLUME_SIZE")
    if wanted.get("KmsKeyArn") and not wanted.get("Encrypted"):
        raise _invalid("KmsKeyArn without Encrypted")
    if wanted.get("KmsKeyArn") and kms_key(asked.region, wanted["KmsKeyArn"]) is None:
        raise _invalid(f"the key {wanted['KmsKeyArn']} is not there", "INVALID_CUSTOMER_KEY")
    if parent and "Encrypted" in wanted:
        raise _invalid("Encrypted and ParentSnapshotId exclude each other")
    made = StrictSnapshot(
        backend, size, wanted.get("Description", ""), encrypted=bool(wanted.get("Encrypted")) or bool(parent and parent.encrypted),
        kms_key_id=wanted.get("KmsKeyArn") or (parent.kms_key_id if parent else None),
    )  # fmt: skip
    path = world().path("snapshots", f"{made.id}.raw")
    made.blocks = parent.readable_blocks().child(path, size * GIB) if parent else Blocks(path, size * GIB)
    made.open = True
    made.add_tags({tag["Key"]: tag["Value"] for tag in wanted.get("Tags", [])})
    if "snapshot-error" in world().effects:
        made.fail()
    said = {
        "SnapshotId": made.id, "OwnerId": ACCOUNT, "Status": made.status, "StartTime": time.time(), "VolumeSize": size, "BlockSize": BLOCK,
        "Tags": wanted.get("Tags", []), "Description": made.description, "SseType": "sse-kms" if made.encrypted else "none",
    }  # fmt: skip
    said |= {name: wanted[name] for name in ("ParentSnapshotId", "KmsKeyArn") if name in wanted}
    return answer_json(start, said, 201)


def _parent(asked: Asked) -> StrictSnapshot | None:
    if "ParentSnapshotId" not in asked.parameters:
        return None
    parent = _find(asked, "ParentSnapshotId")
    if parent.status != "completed":
        raise _invalid(f"the parent {parent.id} is {parent.status}", "INVALID_SNAPSHOT_ID")
    return parent


def _put(asked: Asked, environ: dict[str, Any], start: START) -> list[bytes]:
    """Without the lock: uploads are parallel. What moto does elsewhere does not touch these blocks."""
    wanted = asked.parameters
    data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    snapshot, index = _find(asked), wanted["BlockIndex"]
    if not snapshot.open or snapshot.status != "pending":
        raise _invalid(f"the snapshot {snapshot.id} takes no blocks: it is {snapshot.status}", "INVALID_SNAPSHOT_ID")
    if wanted.get("DataLength") != BLOCK or len(data) != BLOCK:
        raise _invalid(f"DataLength must be {BLOCK}, not {wanted.get('DataLength')} ({len(data)} bytes came)")
    if wanted.get("ChecksumAlgorithm") != "SHA256":
        raise _invalid("ChecksumAlgorithm must be SHA256")
    digest = hashlib.sha256(data).digest()
    if wanted.get("Checksum") != base64.b64encode(digest).decode():
        raise _invalid("Checksum is not that of the data", "INVALID_BLOCK")
    if index >= snapshot.blocks.count:
        raise _invalid(f"BlockIndex {index} is beyond the volume's {snapshot.blocks.count} blocks", "INVALID_BLOCK")
    snapshot.blocks.put(index, data, digest)
    headers = [("x-amz-Checksum", wanted["Checksum"]), ("x-amz-Checksum-Algorithm", "SHA256")]
    return answer(start, 201, b"", "application/json", headers)


def _complete(asked: Asked, start: START) -> list[bytes]:
    wanted, snapshot = asked.parameters, _find(asked)
    if snapshot.status == "completed" or not snapshot.open:
        return answer_json(start, {"Status": snapshot.status}, 202)
    blocks = snapshot.blocks
    if wanted["ChangedBlocksCount"] != len(blocks.written):
        raise _invalid(f"ChangedBlocksCount is {wanted['ChangedBlocksCount']}, but {len(blocks.written)} blocks were put")
    if "Checksum" in wanted:
        if wanted.get("ChecksumAlgorithm") != "SHA256" or wanted.get("ChecksumAggregationMethod") != "LINEAR":
            raise _invalid("Checksum needs ChecksumAlgorithm SHA256 and ChecksumAggregationMethod LINEAR")
        if wanted["Checksum"] != base64.b64encode(blocks.linear()).decode():
            raise _invalid("Checksum is not that of the blocks", "INVALID_BLOCK")
    snapshot.open = False
    snapshot.end_later()
    return answer_json(start, {"Status": "pending"}, 202)


def _get(asked: Asked, start: START) -> list[bytes]:
    snapshot, index = _readable(asked), asked.parameters["BlockIndex"]
    block = snapshot.readable_blocks().blocks.get(index)
    if block is None:
        raise Refused("ResourceNotFoundException", f"there is no block {index}", 404, Reason="SNAPSHOT_NOT_FOUND")
    if block.token != asked.parameters.get("BlockToken"):
        raise _invalid("BlockToken is not this block's", "INVALID_BLOCK_TOKEN")
    checksum = base64.b64encode(block.digest).decode()
    headers = [("x-amz-Data-Length", str(BLOCK)), ("x-amz-Checksum", checksum), ("x-amz-Checksum-Algorithm", "SHA256")]
    return answer(start, 200, snapshot.readable_blocks().get(index), "application/octet-stream", headers)


def _readable(asked: Asked, name: str = "SnapshotId") -> StrictSnapshot:
    snapshot = _find(asked, name)
    if snapshot.status != "completed":
        raise _invalid(f"the snapshot {snapshot.id} is {snapshot.status}", "INVALID_SNAPSHOT_ID")
    return snapshot


def _list(asked: Asked, start: START) -> list[bytes]:
    snapshot = _readable(asked)
    found = [{"BlockIndex": index, "BlockToken": block.token} for index, block in sorted(snapshot.readable_blocks().blocks.items())]
    return _page(asked, start, "Blocks", found, snapshot)


def _changed(asked: Asked, start: START) -> list[bytes]:
    second = _readable(asked, "SecondSnapshotId")
    first = _readable(asked, "FirstSnapshotId") if "FirstSnapshotId" in asked.parameters else None
    before, after = first.readable_blocks().blocks if first else {}, second.readable_blocks().blocks
    found = []
    for index in sorted(before.keys() | after.keys()):
        one, other = before.get(index), after.get(index)
        if (one and one.token) != (other and other.token):
            tokens = {"FirstBlockToken": one and one.token, "SecondBlockToken": other and other.token}
            found.append({"BlockIndex": index, **{name: token for name, token in tokens.items() if token}})
    return _page(asked, start, "ChangedBlocks", found, second)


def _page(asked: Asked, start: START, name: str, found: list[dict[str, Any]], snapshot: StrictSnapshot) -> list[bytes]:
    wanted = asked.parameters
    size = wanted.get("MaxResults", PAGE)
    if not 100 <= size <= PAGE:
        raise _invalid("MaxResults must be 100 to 10000")
    first = int(wanted.get("NextToken") or wanted.get("StartingBlockIndex", 0))
    rest = [entry for entry in found if entry["BlockIndex"] >= first]
    said: dict[str, Any] = {name: rest[:size], "VolumeSize": snapshot.volume.size, "BlockSize": BLOCK, "ExpiryTime": time.time() + 604800}
    if len(rest) > size:
        said["NextToken"] = str(rest[size]["BlockIndex"])
    return answer_json(start, said)
