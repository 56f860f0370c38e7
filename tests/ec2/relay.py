"""Joins stdin and stdout to 127.0.0.1:PORT: what QEMU starts for each connection of a guest to its metadata service.

Started as `python -I -S relay.py PORT`; imports as little as it can, because a guest makes dozens of connections while it boots.
"""

import os
import select
import socket
import sys


def main() -> None:
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    ends = {0: peer.sendall, peer.fileno(): lambda data: os.write(1, data)}
    open_ends = list(ends)
    while peer.fileno() in open_ends:
        for end in select.select(open_ends, [], [])[0]:
            data = os.read(end, 65536)
            if data:
                ends[end](data)
            elif end == 0:
                peer.shutdown(socket.SHUT_WR)
                open_ends.remove(0)
            else:
                open_ends.remove(end)


main()
