"""The target lt/NAME: a launch template. A release makes a new version with the AMI; with --set-default it becomes the default.

The new version is a copy of the default version with --set-default, else of the latest version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baker.aws.errors import translated
from baker.release.targets import templates
from baker.release.targets.aws import AwsTarget
from baker.release.targets.base import Delivery, ReleaseProgress


class LaunchTemplate(AwsTarget):
    """One launch template in the account and region that `access` and the environment select."""

    heeds = frozenset({"set_default"})

    def look(self) -> Mapping[str, Any]:
        default, latest = self._version("$Default"), self._version("$Latest")
        return {"template": latest.template, "default": default.number, "latest": latest.number, "ami": default.ami}

    def check(self, delivery: Delivery) -> None:
        templates.check_image(self.aws, self.region, delivery, self._source(delivery))

    def start(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        number = templates.make_version(self.aws, self.region, self._source(delivery), delivery, journal)
        if delivery.strategy.set_default:
            self._set_default(number)

    def wait(self, delivery: Delivery, journal: ReleaseProgress) -> None:
        """Return at once: no machine is involved."""

    def restore(self, delivery: Delivery, journal: ReleaseProgress) -> bool:
        if not delivery.strategy.set_default or self._version("$Default").number == delivery.before["default"]:
            return False
        self._set_default(int(delivery.before["default"]))
        return True

    def found(self, delivery: Delivery, journal: ReleaseProgress) -> str:
        number = journal.details.get("version")
        if not number:
            return "no change is known"
        return f"version {number} was made; the default is version {self._version('$Default').number}"

    def _source(self, delivery: Delivery) -> templates.Version:
        return self._version(str(delivery.before["default" if delivery.strategy.set_default else "latest"]))

    def _version(self, wanted: str) -> templates.Version:
        return templates.version(self.aws, self.region, {"LaunchTemplateName": self.name}, wanted)

    def _set_default(self, number: int) -> None:
        with translated(f"the default version of launch template {self.name} in {self.region}"):
            self.aws.client("ec2", self.region).modify_launch_template(LaunchTemplateName=self.name, DefaultVersion=str(number))
