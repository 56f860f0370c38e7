"""Service quotas of EC2, of which moto has none."""

from __future__ import annotations

from typing import Any

from tests.ec2.world import ACCOUNT

# code: (name, default, AWS's own units): https://docs.aws.amazon.com/general/latest/gr/ec2-service.html
EC2 = {
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0),
    "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 5.0),
    "L-B665C33B": ("AMIs", 50000.0),
    "L-0E3CBAB9": ("Public AMIs", 5.0),
}
EBS = {"L-309BACF6": ("Snapshots per Region", 100000.0), "L-7A658B76": ("Storage for General Purpose SSD (gp3) volumes, in TiB", 50.0)}


def quotas(service: str, region: str) -> list[dict[str, Any]]:
    known = {"ec2": EC2, "ebs": EBS}.get(service, {})
    return [
        {
            "ServiceCode": service, "ServiceName": service.upper(), "QuotaCode": code, "QuotaName": name, "Value": value, "Unit": "None",
            "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:{service}/{code}", "Adjustable": True, "GlobalQuota": False,
        }
        for code, (name, value) in known.items()
    ]  # fmt: skip


def install() -> None:
    from moto.servicequotas.exceptions import NoSuchResource
    from moto.servicequotas.models import ServiceQuotasBackend

    def every(self: Any, service_code: str) -> list[dict[str, Any]]:
        return quotas(service_code, self.region_name)

    def one(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        for quota in quotas(service_code, self.region_name):
            if quota["QuotaCode"] == quota_code:
                return quota
        raise NoSuchResource

    ServiceQuotasBackend.list_aws_default_service_quotas = every
    ServiceQuotasBackend.get_service_quota = one
