"""The environment with which a build's steps download through the proxy on this host: once for all builds, and on record.

The proxy changes no byte of a download, so it is in no key. For a reproducible template it reads HTTPS as well: the guest then trusts a
certificate authority that exists only for this build, from memory (/run), so that no image contains it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from baker.build.job import Job
from baker.core.errors import BuildError, HostError
from baker.core.model import Network, NetworkPolicy
from baker.machines.base import Machine
from baker.machines.ssh.communicator import Communicator
from baker.proxy import recording
from baker.proxy.proxy import Proxy, http_cache

DIRECTORY = "http"  # below the cache directory
RECORDING = "fetched"  # below a build's scratch directory
SWITCH = "BAKE_HTTP_CACHE"  # in the environment: 0 turns it off
PLACE = "/run/bake"  # in the guest: in memory, so the next boot removes it
TRUST = f"{PLACE}/ca-certificates.crt"
APT = f"{PLACE}/apt.conf"
# each names a list of authorities for some programs: OpenSSL and Go, curl, Python's requests and pip, Node.js, git, Cargo, the AWS CLI
TRUSTING = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
)  # fmt: skip
INSTALL = f"""
mkdir -p -m 755 {PLACE}
{{ cat /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem 2>/dev/null || true
  printf '%s\n' "$BAKE_AUTHORITY"; }} >{TRUST}
printf 'Acquire::https::CaInfo "{TRUST}";\\n' >{APT}
chmod 644 {TRUST} {APT}
"""

PACKETS = "packets.pcap"  # below a build's scratch directory


@contextmanager
def shared_downloads(job: Job) -> Iterator[Downloads]:
    """The downloads of a build's steps; the proxy runs until the end of the block. Where there is no proxy, or the machine does not reach
    it, steps download by themselves; with a closed network they cannot download."""
    replay, network = job.options.replay, network_of(job)
    if replay is None and (job.services.env.get(SWITCH) == "0" or not job.template.builder.reaches_host):
        yield Downloads(job, None, network=network)
        return
    record = None if replay else job.scratch / RECORDING
    if record:
        job.artifacts.add_downloads(record)
    cache = job.services.home.cache / DIRECTORY
    intercept = job.template.reproducible or network == "closed"
    with http_cache(cache, report=job.report, record=record, replay=replay, intercept=intercept) as proxy:
        yield Downloads(job, proxy, network=network, intercept=intercept, record=record)


def network_of(job: Job) -> Network:
    """What the build machine may reach. A rebuild reaches nothing but its record."""
    return "closed" if job.options.replay is not None else job.template.builder.machine_spec().network


class Downloads:
    """How a build's machine uses the proxy. After a failure the steps do without it; that is reported once."""

    def __init__(self, job: Job, proxy: Proxy | None, *, network: Network, intercept: bool = False, record: Path | None = None) -> None:
        self._job, self._proxy, self._network, self._intercept, self._record = job, proxy, network, intercept, record
        self._broken = proxy is None

    @property
    def network(self) -> NetworkPolicy:
        """What the build machine may reach. HostError when that is only the proxy, and the proxy does not start."""
        port = self._proxy.port if self._proxy is not None and self._network != "open" else 0
        return NetworkPolicy(self._network, port, self._job.scratch / PACKETS if self._network == "report" else None)

    def environment(self, machine: Machine, communicator: Communicator, booted: bool) -> Mapping[str, str]:
        """The environment variables for a step. `booted`: whether the machine may have booted since the last one."""
        if self._broken or self._proxy is None:
            return {}
        try:
            place = machine.host_address(self._proxy.port)
        except HostError as error:
            if self._network == "closed":
                raise
            self._broken = True
            if self._record:
                recording.mark_incomplete(self._record)
            self._job.report.warn(f"downloads of the steps are not recorded: {error.message}")
            return {}
        if place is None:
            return {}
        url, host = f"http://{place}", place.rpartition(":")[0]
        found = {"http_proxy": url, "no_proxy": f"{host},localhost,127.0.0.1"}
        if self._intercept:
            if booted:
                self._trust(communicator)
            found |= {"https_proxy": url, "APT_CONFIG": APT} | dict.fromkeys(TRUSTING, TRUST)
        return found

    def _trust(self, communicator: Communicator) -> None:
        """Install the authority in the guest's memory. A machine that reboots has lost it."""
        assert self._proxy is not None
        result = communicator.run(INSTALL, env={"BAKE_AUTHORITY": self._proxy.authority})
        if result.exit_code:
            raise BuildError(
                f"the build's certificate authority could not be installed in the guest: {result.stderr.strip()}",
                code="machine.authority-refused",
            )
