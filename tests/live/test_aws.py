"""The real AWS, for who has an account: `AWS_LIVE=1 make test-aws`. Builds templates/web-ec2.yaml in the environment's account and region,
looks at what came of it, and removes it again. It costs some cents."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from tests.support.cli import PROJECT, Bake, leftovers

pytestmark = pytest.mark.skipif(os.environ.get("AWS_LIVE") != "1", reason="AWS_LIVE=1 says that the account may be used")
REGIONS = ("eu-central-1", "eu-west-1")  # those of the template


@pytest.mark.timeout(5400)
def test_a_build_ends_with_amis_in_two_regions_and_leaves_nothing_else(tmp_path: Path) -> None:
    bake = Bake(tmp_path / "home")
    try:
        bake("build", PROJECT / "templates/web-ec2.yaml", timeout=4500).ok()
        amis = [bake("resolve", "web", "--region", region).ok().out.strip() for region in REGIONS]
        build = bake("show", "web", "--json").ok().json["image"]["build"]
        for region, ami in zip(REGIONS, amis, strict=True):
            ec2 = boto3.client("ec2", region_name=region)
            assert ec2.describe_images(ImageIds=[ami])["Images"][0]["State"] == "available"
            mine = [{"Name": "tag:bake:build", "Values": [build]}]
            assert ec2.describe_key_pairs(Filters=mine)["KeyPairs"] == []
            assert ec2.describe_security_groups(Filters=mine)["SecurityGroups"] == []
            states = [i["State"]["Name"] for r in ec2.describe_instances(Filters=mine)["Reservations"] for i in r["Instances"]]
            assert set(states) <= {"terminated"}
        bake("rm", "web").ok()
        for region in REGIONS:
            assert boto3.client("ec2", region_name=region).describe_images(Owners=["self"], Filters=mine)["Images"] == []
        assert leftovers(bake.home) == []
    finally:
        bake("sweep", "--kept", timeout=1200)
