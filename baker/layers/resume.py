"""Set the clock of a restored machine and reseed its random numbers, which must differ from those of other machines of its layer."""

from __future__ import annotations

import secrets

from baker.core.errors import HostError
from baker.machines.ssh.communicator import Communicator

SEED_BYTES = 64
# random(4): bytes written to /dev/urandom are mixed into the pool; RNDRESEEDCRNG (0x5207) makes the kernel use them at once and not within
# a minute.
SCRIPT = """
{clock}printf '{seed}' >/dev/urandom
if command -v perl >/dev/null; then perl -e 'open(F, ">", "/dev/urandom") or exit; ioctl(F, 0x5207, 0)'
elif command -v python3 >/dev/null; then python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207, 0)'
fi || true
"""


def resume(communicator: Communicator, now: float | None) -> None:
    """Set the guest's clock to `now`, seconds since 1970 (None: leave it as it is), and reseed its random number generator.

    HostError when that fails.
    """
    seed = "".join(f"\\{byte:03o}" for byte in secrets.token_bytes(SEED_BYTES))
    result = communicator.run(SCRIPT.format(clock="" if now is None else f"date -u -s @{now:.3f} >/dev/null\n", seed=seed), timeout=60)
    if result.exit_code != 0:
        raise HostError(f"cannot set the clock of the restored machine: {result.stderr.strip()}", code="layer.resume-failed")
