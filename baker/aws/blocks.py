"""Send PutSnapshotBlock requests with little overhead, for uploads of thousands of blocks.

A request is signed by botocore and sent over the client's own connections, without the rest of botocore's processing. The checksum of a
block is also the payload digest for the signature, so that each block is hashed only once.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.core.clock import Clock

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse

ATTEMPTS = 8  # for lost connections and 5xx
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 10.0


class BlockWriter:
    """Write blocks to one snapshot. Many threads may use it at the same time."""

    def __init__(self, aws: Aws, region: str, snapshot: str, clock: Clock) -> None:
        self._aws = aws
        self._region = region
        self._snapshot = snapshot
        self._clock = clock
        client = aws.client("ebs", region)
        self._url = f"{client.meta.endpoint_url}/snapshots/{snapshot}/blocks/"
        self._http = client._endpoint.http_session  # has the client's certificates, proxies and timeouts
        self._credentials = aws.credentials

    def put(self, index: int, data: bytes, digest: bytes) -> None:
        """Write a block whose SHA-256 is `digest`. A lost request is sent again. AwsError when AWS refuses or received other bytes."""
        what = f"block {index} of {self._snapshot}"
        checksum = base64.b64encode(digest).decode()
        with translated(what):
            answer = self._answer(index, data, checksum, digest.hex())
            if answer.status_code != 201:
                raise _refused(answer)
        if answer.headers.get("x-amz-Checksum") != checksum:
            raise AwsError(
                f"{what} was received with the wrong checksum {answer.headers.get('x-amz-Checksum')}",
                hint="run the command again to resume the upload",
                code="aws.block-checksum",
            )

    def _answer(self, index: int, data: bytes, checksum: str, payload: str) -> AWSResponse:
        from botocore.exceptions import ConnectionError as NoConnection
        from botocore.exceptions import HTTPClientError

        pause = FIRST_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            self._aws.count("ebs:PutSnapshotBlock")
            try:
                answer: AWSResponse = self._http.send(self._request(index, data, checksum, payload))
                if answer.status_code < 500 or attempt == ATTEMPTS:
                    return answer
            except (HTTPClientError, NoConnection):
                if attempt == ATTEMPTS:
                    raise
            self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_SECONDS)
        raise AssertionError("unreachable")

    def _request(self, index: int, data: bytes, checksum: str, payload: str) -> Any:
        """A signed request. https://docs.aws.amazon.com/ebs/latest/APIReference/API_PutSnapshotBlock.html"""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        headers = {
            "x-amz-Data-Length": str(len(data)),
            "x-amz-Checksum": checksum,
            "x-amz-Checksum-Algorithm": "SHA256",
            "X-Amz-Content-SHA256": payload,
            "Content-Type": "application/octet-stream",
        }
        request = AWSRequest("PUT", f"{self._url}{index}", headers=headers, data=data)
        SigV4Auth(self._credentials.get_frozen_credentials(), "ebs", self._region).add_auth(request)
        return request.prepare()


def _refused(answer: AWSResponse) -> Exception:
    """The error in an answer (REST-JSON protocol), as botocore would raise it."""
    from botocore.exceptions import ClientError

    try:
        body = json.loads(answer.content or b"{}")
    except ValueError:
        body = {}
    kind = str(answer.headers.get("x-amzn-ErrorType") or body.get("__type") or body.get("code") or f"HTTP {answer.status_code}")
    code = kind.partition(":")[0].rpartition("#")[2]
    error: Exception = ClientError(
        {"Error": {"Code": code, "Message": body.get("Message") or body.get("message") or code}}, "PutSnapshotBlock"
    )
    return error
