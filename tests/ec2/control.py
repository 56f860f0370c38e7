"""What a test asks of the emulator beside AWS's API: POST /_emulator/VERB with a JSON body, a JSON answer."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

from moto.core.base_backend import BackendDict

from tests.ec2 import inventory, seeding
from tests.ec2.faults import Fault
from tests.ec2.gate import Gate
from tests.ec2.refusals import START, answer_json
from tests.ec2.world import World


class Control:
    """WSGI."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate: Gate
        self.verbs: dict[str, Callable[..., Any]] = {
            "fault": self.fault, "faults": self._faults, "clear-faults": self._clear_faults,
            "calls": lambda: self.gate.calls, "clear-calls": self._clear_calls, "unread": lambda: self.gate.unread,
            "denied": lambda: self.gate.denied, "settings": self.change, "reset": self.reset, "inventory": inventory.inventory,
            "seed-image": seeding.seed_image, "seed-parameter": seeding.seed_parameter,
            "remove-image": seeding.remove_image, "imds": _imds,
        }  # fmt: skip

    def __call__(self, environ: dict[str, Any], start: START) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            verb = self.verbs[environ["PATH_INFO"].removeprefix("/_emulator/")]
            with self.world.lock:
                self.world.settle()
                return answer_json(start, verb(**json.loads(body or b"{}")))
        except Exception:
            return answer_json(start, {"error": traceback.format_exc()}, 500)

    def fault(self, **wanted: Any) -> None:
        self.gate.faults.add(Fault(**wanted))

    def _faults(self) -> dict[str, Any]:
        return self.gate.faults.state()

    def _clear_faults(self) -> None:
        self.gate.faults.clear()

    def _clear_calls(self) -> None:
        self.gate.calls.clear()

    def change(self, **values: Any) -> None:
        """Settings that may change while it runs: delay, policy."""
        for name, value in values.items():
            if name not in ("delay", "policy"):
                raise ValueError(f"{name} cannot be changed")
            setattr(self.world.settings, name, value)

    def reset(self) -> None:
        """An empty account, nothing recorded, no faults."""
        if self.world.settings.machines:
            from tests.ec2 import machines

            machines.end_all()
        BackendDict.reset()
        self.world.forget()
        self.gate.faults.clear()
        self.gate.calls.clear()
        self.gate.unread.clear()
        self.gate.denied.clear()


def _imds(instance: str) -> list[str]:
    from tests.ec2 import machines

    return machines.asked(instance)
