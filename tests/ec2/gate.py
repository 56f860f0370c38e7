"""The WSGI layer in front of moto: every request is read, recorded, judged, made to fail if so wished, and only then carried out."""

from __future__ import annotations

import json
import os
import socket
import struct
import traceback
from collections.abc import Callable
from typing import Any

from tests.ec2 import asked as reading
from tests.ec2 import ebs, faults, iam, keys, reads
from tests.ec2.asked import Asked
from tests.ec2.refusals import START, Refused, nothing, refuse
from tests.ec2.world import World

App = Callable[[dict[str, Any], START], Any]


class Gate:
    """WSGI. `control` answers below /_emulator/, `moto` everything else. Requests under keys.ADMIN are the tests' own: they are not
    recorded, need no permission and suffer nothing."""

    def __init__(self, world: World, moto: App, control: App) -> None:
        self.world, self.moto, self.control = world, moto, control
        self.faults = faults.Faults()
        self.calls: list[dict[str, Any]] = []
        self.unread: list[str] = []
        self.denied: list[str] = []

    def __call__(self, environ: dict[str, Any], start: START) -> Any:
        if environ["PATH_INFO"].startswith("/_emulator/"):
            return self.control(environ, start)
        service = ""
        try:
            asked = self._read(environ)
            if asked is None:
                return self.moto(environ, start)
            service = asked.service
            return self._admitted(asked, environ, start) if asked.key != keys.ADMIN else self._carry_out(asked, environ, start)
        except Refused as error:
            return refuse(start, service or "ec2", error)
        except ConnectionResetError:
            raise
        except Exception as error:  # no client asks again after this, and a test that looks at `unread` sees it
            traceback.print_exc()
            self.unread.append(f"{service}: the emulator broke: {error!r}: see emulator.log")
            return refuse(start, service or "ec2", Refused("EmulatorBroke", repr(error)))
        finally:
            self.world.effects = {}

    def _read(self, environ: dict[str, Any]) -> Asked | None:
        found = reading.SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        if found and found["service"] == "ebs":
            action, parameters = ebs.parse(environ)
            return Asked("ebs", found["region"], action, found["key"], parameters)
        return reading.parse(environ)

    def _admitted(self, asked: Asked, environ: dict[str, Any], start: START) -> Any:
        """A call of bake's."""
        self.calls.append({"service": asked.service, "action": asked.action, "region": asked.region, "parameters": asked.parameters})
        if self.world.settings.policy is not None and (refusal := iam.refusal(self.world, asked)):
            self.denied.append(refusal.message)
            raise refusal
        suffered = self.faults.take(asked)
        for fault in suffered:
            if fault.kind == "NotFound" and faults.lists(asked):
                return nothing(start, asked.action)
            if fault.kind in faults.ERRORS:
                raise faults.error(fault, asked)
        if unknown := reads.unread(asked):
            self.unread += [name for name in unknown if name not in self.unread]
            raise Refused("EmulatorDoesNotRead", f"tests/ec2/reads.py does not have {', '.join(unknown)}")
        self.world.effects = {fault.kind: fault.seconds for fault in suffered if fault.kind in faults.EFFECTS}
        answer = self._carry_out(asked, environ, start)
        if any(fault.kind == "reset" for fault in suffered):
            _reset(environ)
        return answer

    def _carry_out(self, asked: Asked, environ: dict[str, Any], start: START) -> Any:
        token = asked.parameters.get("ClientToken")
        run = (lambda environ, start: ebs.handle(asked, environ, start)) if asked.service == "ebs" else self.moto
        if asked.action in ("PutSnapshotBlock", "GetSnapshotBlock"):
            return run(environ, start)
        with self.world.lock:
            self.world.settle()
            return self._once(asked, token, run, environ, start) if token else _whole(run, environ, start)

    def _once(self, asked: Asked, token: str, run: App, environ: dict[str, Any], start: START) -> Any:
        """The same client token with the same parameters has the same answer, and no second effect."""
        key = (asked.region, asked.name, token)
        wanted = json.dumps(asked.parameters, sort_keys=True, default=str)
        before = self.world.tokens.get(key)
        if before and before[0] != wanted:
            code = "ConflictException" if asked.service == "ebs" else "IdempotentParameterMismatch"
            raise Refused(code, f"The client token {token} was used with other parameters", 409 if asked.service == "ebs" else 400)
        if before:
            status, headers, body = before[1]
            start(status, headers)
            return [body]
        kept: list[Any] = []
        body = b"".join(run(environ, lambda status, headers, *_: kept.extend((status, list(headers)))))
        if kept[0].startswith("2"):
            self.world.tokens[key] = (wanted, (*kept, body))
        start(*kept)
        return [body]


def _whole(run: App, environ: dict[str, Any], start: START) -> list[bytes]:
    """The answer read to its end, while the lock is held."""
    return [b"".join(run(environ, start))]


def _reset(environ: dict[str, Any]) -> None:
    """The connection is reset: nothing of the answer arrives."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError("as was wished")
