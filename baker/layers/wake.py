"""What a restored machine has to be told: the time it is now, and that its random numbers are to be others than its twins'."""

from __future__ import annotations

import secrets
import time

from baker.communicator.base import Communicator
from baker.errors import HostError

SEED_BYTES = 64
# random(4): what is written is mixed in; RNDRESEEDCRNG (0x5207) makes the kernel draw from it at once instead of within a minute.
SCRIPT = """
date -u -s @{now} >/dev/null
printf '{seed}' >/dev/urandom
if command -v perl >/dev/null; then perl -e 'open(F, ">", "/dev/urandom") or exit; ioctl(F, 0x5207, 0)'
elif command -v python3 >/dev/null; then python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207, 0)'
fi || true
"""


def wake(communicator: Communicator) -> None:
    """Step the clock and reseed the entropy. HostError when the machine does not do as told."""
    seed = "".join(f"\\{byte:03o}" for byte in secrets.token_bytes(SEED_BYTES))
    result = communicator.run(SCRIPT.format(now=f"{time.time():.3f}", seed=seed), timeout=60)
    if result.exit_code != 0:
        raise HostError(f"the restored machine cannot be given the time: {result.stderr.strip()}")
