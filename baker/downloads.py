"""What a build's steps are told so that what they fetch over HTTP is fetched once: the address of the cache on this host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from baker.builders.base import Machine
from baker.errors import HostError
from baker.httpcache.proxy import http_cache
from baker.job import Job

DIRECTORY = "http"  # below the cache directory
SWITCH = "BAKE_HTTP_CACHE"  # in the environment: 0 turns it off

Environment = Callable[[Machine], Mapping[str, str]]


@contextmanager
def shared_downloads(job: Job) -> Iterator[Environment]:
    """The environment variables for steps on a machine. What they name runs until the end; it changes no byte of what is fetched, so
    it stands in no key. Without it, when it cannot start or the machine does not reach this host, steps fetch by themselves."""
    if job.world.env.get(SWITCH) == "0" or job.template.builder.kind == "ec2":  # an instance does not reach this host
        yield lambda machine: {}
        return
    with http_cache(job.world.home.cache / DIRECTORY, report=job.report) as proxy:
        told: list[str] = []

        def environment(machine: Machine) -> Mapping[str, str]:
            host = machine.host_address
            if host is None or told:
                return {}
            try:
                url = f"http://{host}:{proxy.port}"
            except HostError as error:
                told.append(str(error))
                job.report.warn(f"what steps download is not kept: {error.message}")
                return {}
            return {"http_proxy": url, "no_proxy": f"{host},localhost,127.0.0.1"}

        yield environment
