"""The emulator's process: `python -m tests.ec2.serve` with its settings as JSON on stdin; says its port on stdout and ends with its parent.

moto keeps its state in modules, so one process is one account.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    os.environ |= {
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_ENABLE_AMI_VALIDATION": "true", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    }  # fmt: skip
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    from tests.ec2 import handlers, world
    from tests.ec2.connections import Handler
    from tests.ec2.control import Control
    from tests.ec2.gate import Gate

    wanted = json.loads(sys.stdin.readline())
    created = world.create(world.Settings(**{**wanted, "directory": Path(wanted["directory"])}))
    control = Control(created)
    gate = control.gate = Gate(created, DomainDispatcherApplication(create_backend_app), control)
    handlers.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(server.server_port, flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        handlers.end()
        os._exit(0)  # nothing is left to be tidied: what Python does at its end takes half a second


def _end_with_parent() -> None:
    """The parent holds the other end of stdin, and nobody else does."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
