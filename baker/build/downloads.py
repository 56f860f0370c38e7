"""The environment with which a build's steps download through the proxy on this host, which caches and records their downloads.

The proxy changes no byte of a download, so it is not part of keys. For a reproducible template it intercepts HTTPS, too: the guest then
trusts a certificate authority that exists for this build only. Its certificate is in memory (/run), so that no image contains it.
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
SWITCH = "BAKE_HTTP_CACHE"  # environment variable; 0 disables the proxy
PLACE = "/run/bake"  # in the guest; it is in memory, so a reboot removes it
TRUST = f"{PLACE}/ca-certificates.crt"
APT = f"{PLACE}/apt.conf"
# variables with a file of certificate authorities, for OpenSSL and Go, curl, Python's requests and pip, Node.js, git, Cargo, the AWS CLI
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
    """Run the proxy for a build's steps until the end of the block. Without a proxy, or when the machine cannot reach it, steps download
    directly; with a closed network they cannot download."""
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
    """The network policy of the build machine. A rebuild can reach only its record."""
    return "closed" if job.options.replay is not None else job.template.builder.machine_spec().network


class Downloads:
    """The use of the proxy by a build's machine. After a failure the steps run without the proxy, which is reported once."""

    def __init__(self, job: Job, proxy: Proxy | None, *, network: Network, intercept: bool = False, record: Path | None = None) -> None:
        self._job, self._proxy, self._network, self._intercept, self._record = job, proxy, network, intercept, record
        self._broken = proxy is None

    @property
    def network(self) -> NetworkPolicy:
        """The network policy of the build machine. HostError when only the proxy is allowed, but the proxy does not start."""
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
        """Install the certificate authority in the guest's memory. It is lost when the machine reboots."""
        assert self._proxy is not None
        result = communicator.run(INSTALL, env={"BAKE_AUTHORITY": self._proxy.authority})
        if result.exit_code:
            raise BuildError(
                f"the build's certificate authority could not be installed in the guest: {result.stderr.strip()}",
                code="machine.authority-refused",
            )
