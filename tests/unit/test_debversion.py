"""Debian versions are ordered as dpkg orders them."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from functools import cmp_to_key

import pytest

from baker.lockfile.debversion import compare

VERSIONS = (
    "1.0~rc1-1", "1.0~~", "1.0~", "1.0", "1.0-0", "1.0-1", "1.0-1+deb12u1", "1.0-1+deb12u10", "1.0-1+deb12u9", "1.0-1~bpo12+1",
    "1.0+dfsg-2", "1.0a-1", "1.0.1-1", "1:0.9-1", "0:1.0-1", "2-1-1", "1.22.1-9", "1.22.1-10", "007-1", "7-1", "1.0-a", "1.0-+",
)  # fmt: skip


def test_some_that_are_easily_got_wrong() -> None:
    assert sorted(["1.0", "1:0.1", "1.0-1", "1.0~rc1"], key=cmp_to_key(compare)) == ["1.0~rc1", "1.0", "1.0-1", "1:0.1"]
    assert compare("1.22.1-9", "1.22.1-10") == -1
    assert compare("0:7-1", "007-1") == 0


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg to compare with")
def test_every_pair_is_as_dpkg_says() -> None:
    for one, other in itertools.combinations(VERSIONS, 2):
        told = {
            sign: subprocess.run(["dpkg", "--compare-versions", one, sign, other], check=False).returncode == 0 for sign in ("lt", "gt")
        }
        assert compare(one, other) == -compare(other, one) == told["gt"] - told["lt"], (one, other)
