"""What uses an AMI by way of an SSM parameter, as Parameter Store answers and the emulator does not: with selectors."""

from __future__ import annotations

from typing import Any

from baker.aws.session import Access, Aws
from baker.release.in_use import Region

ARN = "arn:aws:ssm:eu-west-1:123456789012:parameter/web"


class ParameterStore(Aws):
    """Its client: versions and labels of /web are asked for by selector, and come back apart from the name."""

    def client(self, service: str, region: str | None = None) -> Any:
        return self

    def get_parameters(self, *, Names: list[str]) -> dict[str, Any]:  # noqa: N803
        values = {"/web": "ami-latest", "/web:3": "ami-3", f"{ARN}:stable": "ami-stable", ARN: "ami-latest"}
        found = []
        for name in Names:
            if name in values:
                selector = name.removeprefix(ARN).removeprefix("/web")
                found.append({"Name": "/web", "ARN": ARN, "Value": values[name]} | ({"Selector": selector} if selector else {}))
        return {"Parameters": found}


def test_parameters_are_known_by_every_name_that_a_template_may_use() -> None:
    region = Region(ParameterStore(Access(region="eu-west-1")), "eu-west-1")
    wanted = {"/web", "/web:3", f"{ARN}:stable", "/gone"}
    found = region._parameters(wanted)
    assert {name: found.get(name) for name in wanted} == {
        "/web": "ami-latest", "/web:3": "ami-3", f"{ARN}:stable": "ami-stable", "/gone": None,
    }  # fmt: skip
    assert found[ARN] == "ami-latest"
