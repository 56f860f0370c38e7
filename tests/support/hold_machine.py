"""Start a machine on an empty disk, and end in the given way: `hold_machine.py BASE BUILD DISK kill|keep|leave URI`."""

import os
import signal
import sys
from pathlib import Path

from baker.core.events import Null, Reporter
from baker.core.home import Home, ensure
from baker.core.ledger import Ledger
from baker.core.model import MachineSpec
from baker.disks import qemuimg
from baker.machines.base import Launch
from baker.machines.identity import make_identity
from baker.machines.libvirt.builder import LibvirtBuilder

base, build, disk, ending, uri = sys.argv[1:]
home = Home.from_environment({"BAKE_HOME": base, "HOME": base})
with Ledger(ensure(home.ledger)).open(build) as ledger:
    scratch = ensure(home.work(build))
    shape = MachineSpec(cpus=1, memory=256 << 20, accelerator="tcg")
    request = Launch(
        "build", qemuimg.as_disk(Path(disk), "qcow2"), shape, make_identity(scratch, "g", "root"), scratch, ledger, Reporter(Null())
    )
    with LibvirtBuilder(home, uri).launch(request) as machine:
        assert machine.running()
        print(machine.endpoint.port, machine.runtime, flush=True)
        if ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == "keep":
            machine.keep()
