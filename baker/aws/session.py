"""Sessions with AWS: credentials found as the AWS CLI finds them, one client per service and region, and a count of all requests.

boto3 is imported with the first client, not before. See retry.py for the requests that are retried.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from baker.aws.errors import no_credentials, no_region, translated
from baker.aws.retry import Retry
from baker.core.clock import Clock

CONNECT_SECONDS, READ_SECONDS = 10, 60  # timeouts


@dataclass(frozen=True)
class Access:
    """The credentials and region to use. What is left out is found as the AWS CLI finds it: environment, profile, SSO, web identity,
    instance role."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    role_arn: str | None = None  # a role to assume with the credentials
    external_id: str | None = None
    session_name: str = "bake"


class Aws:
    """One session. Many threads may use its clients at the same time."""

    def __init__(self, access: Access | None = None, clock: Clock | None = None, session: Any = None) -> None:
        """`session` is a boto3 session to use instead of one made from `access`."""
        self.access = access or Access()
        self.clock = clock or Clock()
        self._given = session
        self.calls: Counter[str] = Counter()  # "ec2:RunInstances" -> requests sent, including retries
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, region: str | None = None) -> Any:
        """The boto3 client of `service` ("ec2", "ssm", ...) in `region`, default the session's region. HostError without a region."""
        where = region or self.region
        with self._lock:
            if (service, where) not in self._clients:
                self._clients[service, where] = self._make(service, where)
            return self._clients[service, where]

    @cached_property
    def region(self) -> str:
        """The session's region. HostError when none is configured."""
        found: str | None = self.access.region or self._session.region_name
        if not found:
            raise no_region()
        return found

    @cached_property
    def account(self) -> str:
        """The account ID, 12 digits."""
        return str(self._identity["Account"])

    @property
    def arn(self) -> str:
        """The ARN of the user or role that the credentials belong to."""
        return str(self._identity["Arn"])

    @cached_property
    def _identity(self) -> dict[str, Any]:
        with translated("the owner of the credentials"):
            return dict(self.client("sts").get_caller_identity())

    def _make(self, service: str, region: str) -> Any:
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=64,
            user_agent_appid="bake",
        )
        with translated(f"the {service} client"):
            client = self._session.client(service, region_name=region, endpoint_url=self.access.endpoint_url, config=config)
        service_id = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-send.{service_id}", self._count)
        client.meta.events.register(f"needs-retry.{service_id}", Retry(self.clock))
        return client

    def _count(self, event_name: str, **_: Any) -> None:
        service, action = event_name.split(".", 2)[1:]
        self.count(f"{service}:{action}")

    def count(self, call: str) -> None:
        """Count one more request of `call`, such as "ec2:RunInstances"."""
        with self._lock:
            self.calls[call] += 1

    @property
    def credentials(self) -> Any:
        """botocore's credentials, which it renews when they expire. HostError when there are none."""
        with translated("the AWS credentials"):
            found = self._session.get_credentials()
        if found is None:
            raise no_credentials()
        return found

    @cached_property
    def _session(self) -> Any:
        import boto3

        with translated("the AWS session"):
            base = self._given or boto3.Session(profile_name=self.access.profile, region_name=self.access.region)
            return self._assumed(base) if self.access.role_arn else base

    def _assumed(self, base: Any) -> Any:
        """A session with the role `access.role_arn`, whose credentials are renewed when they expire."""
        import boto3
        import botocore.session
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        extra: dict[str, Any] = {"RoleSessionName": self.access.session_name}
        if self.access.external_id:
            extra["ExternalId"] = self.access.external_id

        def create_client(service: str, **options: Any) -> Any:
            return base.client(service, endpoint_url=self.access.endpoint_url, region_name=self.region_of(base), **_credentials(options))

        fetcher = AssumeRoleCredentialFetcher(
            client_creator=create_client, source_credentials=base.get_credentials(), role_arn=self.access.role_arn, extra_args=extra
        )
        inner = botocore.session.get_session()
        inner._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
        return boto3.Session(botocore_session=inner, region_name=self.region_of(base))

    def region_of(self, session: Any) -> str | None:
        """The configured region, else that of the boto3 session."""
        found: str | None = self.access.region or session.region_name
        return found


def _credentials(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments that botocore passes to a client factory, reduced to those that boto3 accepts."""
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "config")
    return {name: options[name] for name in names if name in options}
