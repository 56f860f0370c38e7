"""Run several builds in parallel, in the order of their dependencies.

Each build needs its own process, because the in-process driver of libvirt has one root directory per process. Builds run in
worker processes, which read a request from stdin and report events as JSON lines on stdout. The last remaining build runs in
this process, where questions can be asked at the terminal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from typing import Protocol

from baker.core import process
from baker.core.events import BuildFinished, Sink, from_json
from baker.plan.graph import BuildNode, Ended, order

CLEANUP_SECONDS = 180.0


class Pool(Protocol):
    """Starts builds in other processes."""

    def start(self, node: BuildNode) -> Future[Ended]: ...


def run(nodes: Sequence[BuildNode], here: Callable[[BuildNode], Ended], pool: Pool, *, parallel: int, fail_fast: bool) -> list[Ended]:
    """Build all nodes, at most `parallel` at a time. A node that needs a failed one is skipped; with `fail_fast`, so are all other nodes.

    `here` builds a node in this process; it is called for the last remaining node. The results are in the order of `nodes`.
    """
    sorter = TopologicalSorter({node.key: node.needs for node in order(nodes)})
    sorter.prepare()
    by_key = {node.key: node for node in nodes}
    ended: dict[str, Ended] = {}
    waiting: list[BuildNode] = []
    running: dict[Future[Ended], BuildNode] = {}

    def end(node: BuildNode, how: Ended) -> None:
        ended[node.key] = how
        sorter.done(node.key)

    while sorter.is_active():
        waiting += [by_key[key] for key in sorter.get_ready()]
        for node in [node for node in waiting if node.ended]:
            waiting.remove(node)
            end(node, node.ended or Ended(node.key, 1))
            waiting += [by_key[key] for key in sorter.get_ready()]
        failed = {key for key, how in ended.items() if how.exit_code}
        for node in [node for node in waiting if node.needs & failed or (failed and fail_fast)]:
            waiting.remove(node)
            end(node, Ended(node.key, 1, error="not started: " + _why(node, failed, by_key), code="build.not-begun", skipped=True))
        if len(waiting) == 1 and not running and len(ended) == len(nodes) - 1:
            node = waiting.pop()
            end(node, here(node))
        while waiting and len(running) < parallel:
            node = waiting.pop(0)
            running[pool.start(node)] = node
        for future in _first(running):
            end(running.pop(future), future.result())
    return [ended[node.key] for node in nodes]


def _first(running: Mapping[Future[Ended], BuildNode]) -> set[Future[Ended]]:
    """The builds that have ended. Waits for the first one with short timeouts, so that signals are handled."""
    while running:
        done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        if done:
            return done
    return set()


def _why(node: BuildNode, failed: set[str], by_key: Mapping[str, BuildNode]) -> str:
    needed = sorted(by_key[key].template.name for key in node.needs & failed)
    return f"it needs {', '.join(needed)}, which failed" if needed else "another build failed"


class Workers:
    """The worker processes of one run. On an interrupt they get SIGTERM and `patience` seconds to clean up."""

    def __init__(self, sink: Sink, patience: float = CLEANUP_SECONDS) -> None:
        self._sink = sink
        self._patience = patience
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="worker")
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            children = list(self._children)
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)  # the worker alone: it ends its own children
        deadline = time.monotonic() + self._patience
        for child in children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.end(child)
        self._pool.shutdown()

    def start(self, node: BuildNode) -> Future[Ended]:
        return self._pool.submit(self._work, node)

    def _work(self, node: BuildNode) -> Ended:
        argv = [sys.executable, "-m", "baker.cli.worker"]
        finished: BuildFinished | None = None
        with self._child(argv) as child:
            assert child.stdin and child.stdout
            try:
                child.stdin.write(json.dumps(node.request).encode())
                child.stdin.close()
            except BrokenPipeError:
                pass  # it died at once: its exit code reports that
            for line in child.stdout:
                try:
                    event = from_json(json.loads(line))
                except ValueError:
                    continue  # output of a library, not an event
                finished = event if isinstance(event, BuildFinished) else finished
                self._sink.emit(event)
            code = child.wait()
        error = finished.error if finished else f"the worker process ended with exit code {code} and without a result; see `bake logs`"
        if code == 0:
            return Ended(node.key, code, finished)
        return Ended(node.key, code, finished, error, code=(finished.code if finished else "") or "build.worker-died")

    @contextmanager
    def _child(self, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        env = {name: value for name, value in os.environ.items() if name != process.BUILD_ID_VARIABLE}
        with process.spawn(argv, env=env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            with self._lock:
                self._children.add(child)
            try:
                yield child
            finally:
                try:
                    child.wait(self._patience)
                except subprocess.TimeoutExpired:
                    process.end(child)
                with self._lock:
                    self._children.discard(child)
