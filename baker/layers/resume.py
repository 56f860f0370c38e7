"""What a restored machine has to be told: the time it is now, and that its random numbers are to be others than its twins'."""

from __future__ import annotations

import secrets

from baker.core.errors import HostError
from baker.machines.ssh.communicator import Communicator

SEED_BYTES = 64
# random(4): what is written is mixed in; RNDRESEEDCRNG (0x5207) makes the kernel draw from it at once instead of within a minute.
SCRIPT = """
{clock}printf '{seed}' >/dev/urandom
if command -v perl >/dev/null; then perl -e 'open(F, ">", "/dev/urandom") or exit; ioctl(F, 0x5207, 0)'
elif command -v python3 >/dev/null; then python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207, 0)'
fi || true
"""


def wake(communicator: Communicator, now: float | None) -> None:
    """Step the clock to `now`, seconds since 1970 (None: it goes on where it stood), and reseed the entropy. HostError when the machine
    does not do as told."""
    seed = "".join(f"\\{byte:03o}" for byte in secrets.token_bytes(SEED_BYTES))
    result = communicator.run(SCRIPT.format(clock="" if now is None else f"date -u -s @{now:.3f} >/dev/null\n", seed=seed), timeout=60)
    if result.exit_code != 0:
        raise HostError(f"the restored machine cannot be given the time: {result.stderr.strip()}")
