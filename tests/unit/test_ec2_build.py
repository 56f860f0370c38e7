"""Builds on EC2, against the emulator over HTTP, with guests that are fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ec2 import Emulator
from tests.support.cloud import REGION, Yard, yard


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.0) as cloud:
        yield cloud


@pytest.fixture
def shop(cloud: Emulator, tmp_path: Path) -> Iterator[Yard]:
    with yard(cloud, tmp_path) as shop:
        yield shop
        assert cloud.unread == []


def test_a_build_ends_with_an_ami_on_record_and_nothing_else(shop: Yard) -> None:
    outcome = shop.bake("ami_regions: [eu-west-1]")
    assert outcome.image is not None
    assert (outcome.image.builder, outcome.image.chain, outcome.image.verified) == ("ec2", (), True)
    published = shop.catalog.publications(outcome.image.id)
    assert [each.region for each in published] == [REGION, "eu-west-1"]
    print(shop.cloud.inventory(), shop.actions())
    assert shop.ledgers() == []
