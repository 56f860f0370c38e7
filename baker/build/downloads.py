"""What a build's steps are told so that what they fetch goes through this host: it is fetched once, and it is on record.

The proxy changes no byte of what is fetched, so it stands in no key. For a template that is to be reproducible it sees into HTTPS as
well: guests are told of an authority that lives as long as the build, in memory (/run), so that no image knows of it.
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
RECORD, EARLIER = "fetched", "fetched-before"  # below a build's scratch directory
SWITCH = "BAKE_HTTP_CACHE"  # in the environment: 0 turns it off
PLACE = "/run/bake"  # in the guest: memory, gone with the next boot
TRUST = f"{PLACE}/ca-certificates.crt"
APT = f"{PLACE}/apt.conf"
# what programs read instead of the system's own list: OpenSSL and Go, curl, Python's requests and pip, Node.js, git, Cargo, the AWS CLI
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
    """What a build's steps are told. What that names runs until the end. Without it, when it cannot start or the machine does not reach
    this host, steps fetch by themselves; with a closed network they do not fetch."""
    replay, network = job.options.replay, network_of(job)
    if replay is None and (job.services.env.get(SWITCH) == "0" or not job.template.builder.reaches_host):
        yield Downloads(job, None, network=network)
        return
    kept = None if replay else job.scratch / RECORD
    cache = job.services.home.cache / DIRECTORY
    intercept = job.template.reproducible or network == "closed"
    with http_cache(cache, report=job.report, record=kept, replay=replay, intercept=intercept) as proxy:
        yield Downloads(job, proxy, network=network, intercept=intercept)


def network_of(job: Job) -> Network:
    """What the build machine may reach: what is made from a record reaches nothing else."""
    return "closed" if job.options.replay is not None else job.template.builder.machine_spec().network


class Downloads:
    """What machines are told of the proxy, and whether something is wrong with it, once."""

    def __init__(self, job: Job, proxy: Proxy | None, *, network: Network, intercept: bool = False) -> None:
        self._job, self._proxy, self._network, self._intercept = job, proxy, network, intercept
        self._broken = proxy is None

    @property
    def gate(self) -> NetworkPolicy:
        """What the build machine may reach. HostError when that is the proxy alone, and it does not start."""
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
            recording.give_up(self._job.scratch / RECORD)
            self._job.report.warn(f"what steps download is not kept: {error.message}")
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
        """Tell the guest of the authority. A machine that reboots forgets it."""
        assert self._proxy is not None
        result = communicator.run(INSTALL, env={"BAKE_AUTHORITY": self._proxy.authority})
        if result.exit_code:
            raise BuildError(f"the guest does not take the build's certificate authority: {result.stderr.strip()}")


def recorded(job: Job) -> list[Path]:
    """The directories with what the build's machines fetched, in order: for the layer that it went on from, then by itself."""
    return [directory for name in (EARLIER, RECORD) if recording.exists(directory := job.scratch / name)]
