"""Whether a policy allows a request."""

from __future__ import annotations

from tests.ec2.asked import Asked
from tests.ec2.refusals import Refused
from tests.ec2.world import World


def refusal(world: World, asked: Asked) -> Refused | None:
    return None
