"""Instances that take time to come and go, and have a guest when the emulator has machines."""

from __future__ import annotations

import copy
import time
from typing import Any

from moto.ec2.models.instances import Instance, InstanceState, StateReason

from tests.ec2.refusals import Refused
from tests.ec2.world import world

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
BY_USER = "Client.UserInitiatedShutdown"


class StrictInstance(Instance):  # type: ignore[misc]
    """`guest` is its machine, None without machines; `disk` is the (path, format) that its root volume began with."""

    __module__ = "moto.ec2.models"
    guest: Any = None
    disk: Any = None
    checks_at = 0.0  # time.monotonic() at which the status checks have passed
    impaired = False
    spot_persistent = False
    wanted_gone = False

    def become(self, state: str, code: str = "", message: str = "") -> InstanceState:
        """The state before."""
        before = copy.copy(self._state)
        self._state = InstanceState(state, CODES[state])
        self.state_reason = StateReason(f"{code}: {message}", code) if code else StateReason()
        self._reason = message
        return before

    def begin(self) -> None:
        """Pending, then running, unless a fault has it otherwise."""
        effects = world().effects
        self.become("pending")
        self.impaired = "impaired" in effects
        if "instance-fails" in effects:
            world().later(lambda: self.lose("Server.InternalError", "Internal error on launch"))
        else:
            if self.guest is not None:
                self.guest.start()
            world().later(self.run)
        if "spot-reclaim" in effects:
            reason = "Server.SpotInstanceTermination", "Spot instance termination"
            world().later(lambda: self.lose(*reason), world().delay + effects["spot-reclaim"])

    def run(self) -> None:
        if self.state != "pending":
            return
        self.become("running")
        self.checks_at = time.monotonic() + world().settings.delay
        if self.guest is not None:
            world().until(lambda: bool(self.guest.ended), self.ended)

    def ended(self) -> None:
        """Its guest is off: because it was told so, or by itself."""
        if self.guest is not None:
            self.guest.at_rest()
        else:
            self.nics[0].stop()
        if self.state == "shutting-down":
            self.gone()
        elif self.state == "running" and self.instance_initiated_shutdown_behavior == "terminate":
            self.become("shutting-down", "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            self.gone()
        elif self.state == "running":
            self.become("stopped", "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        elif self.state == "stopping":
            self.become("stopped", BY_USER, "User initiated shutdown")

    def lose(self, code: str, message: str) -> None:
        """Taken away, by AWS."""
        if self.state not in ("shutting-down", "terminated"):
            self.terminate()
            self.state_reason, self._reason = StateReason(f"{code}: {message}", code), message

    def start(self) -> InstanceState:
        if self.state in ("pending", "running"):
            return copy.copy(self._state)
        self._only("stopped", "started")
        before = self.become("pending")
        if self.guest is not None:
            self.guest.start()
        else:
            self.nics[0].start()
        world().later(self.run)
        return before

    def stop(self, force: bool = False) -> InstanceState:
        if self.state in ("stopping", "stopped"):
            return copy.copy(self._state)
        self._only("running", "stopped")
        if self.lifecycle == "spot" and not self.spot_persistent:
            raise Refused(
                "UnsupportedOperation", f"You can't stop the Spot Instance '{self.id}' because it is associated with a one-time request."
            )
        before = self.become("stopping", BY_USER, "User initiated shutdown")
        if self.guest is not None:
            (self.guest.kill if force else self.guest.power_off)()
        else:
            world().later(self.ended)
        return before

    def terminate(self) -> InstanceState:
        if self.state in ("shutting-down", "terminated"):
            return copy.copy(self._state)
        off = self.state in ("stopped", "pending")
        before = self.become("shutting-down", BY_USER, "User initiated shutdown")
        if self.guest is not None and not off:
            self.guest.kill()  # ended() comes from run()'s watch
        else:
            if self.guest is not None:
                self.guest.kill()
            world().later(self.gone)
        return before

    def gone(self) -> None:
        """Terminated: volumes, interfaces, addresses go."""
        if self.state != "shutting-down":
            return
        reason, text = self.state_reason, self._reason
        super().terminate()
        self.become("terminated")
        self.state_reason, self._reason = reason, text
        if self.guest is not None:
            self.guest.discard()

    def reboot(self) -> None:
        self._only("running", "rebooted")
        if self.guest is not None:
            self.guest.reset()

    def check_at_rest(self) -> None:
        """An image of a running guest would be torn."""
        if self.guest is not None and self.state != "stopped":
            raise Refused("EmulatorDoesNot", f"make an image of {self.id} while its machine runs: stop it first")

    def _only(self, state: str, done: str) -> None:
        if self.state != state:
            raise Refused(
                "IncorrectInstanceState", f"The instance '{self.id}' is not in a state from which it can be {done}: it is {self.state}."
            )

    @property
    def instance_status(self) -> dict[str, Any]:
        return self._checks()

    @property
    def system_status(self) -> dict[str, Any]:
        return self._checks()

    def _checks(self) -> dict[str, Any]:
        if self.state != "running":
            return {"Status": "not-applicable"}
        status = "impaired" if self.impaired else "ok" if time.monotonic() >= self.checks_at else "initializing"
        passed = {"ok": "passed", "impaired": "failed"}.get(status, "initializing")
        return {"Status": status, "Details": [{"Name": "reachability", "Status": passed}]}

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name == "client-token":
            return self.client_token
        return super().get_filter_value(filter_name, method_name)
