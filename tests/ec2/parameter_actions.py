"""SSM parameters of the data type aws:ec2:image, whose values have to be images."""

from __future__ import annotations

from typing import Any

from moto.ec2.models import ec2_backends

from tests.ec2.refusals import Refused
from tests.ec2.world import ACCOUNT


def put_parameter(self: Any) -> Any:
    """AWS checks the image after it has answered; here it is refused at once, so that nobody relies on it."""
    from moto.ssm.responses import SimpleSystemManagerResponse

    if self._get_param("DataType") == "aws:ec2:image":
        image = ec2_backends[ACCOUNT][self.region].amis.get(self._get_param("Value"))
        if image is None or image.state != "available":
            raise Refused("ValidationException", f"{self._get_param('Value')} is no available image in {self.region}")
    return SimpleSystemManagerResponse.moto_put_parameter(self)
