"""Joins a connection of a guest, which is stdin and stdout, with a port of this host's loopback. QEMU starts one for each connection."""

import os
import socket
import sys
import threading

SIZE = 1 << 16


def main() -> None:
    guest = socket.socket(fileno=os.dup(0))
    with guest, socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as proxy:
        threading.Thread(target=copy, args=(guest, proxy), daemon=True).start()
        copy(proxy, guest)  # the answer's end is the end


def copy(source: socket.socket, destination: socket.socket) -> None:
    """All that comes, then the end of it."""
    try:
        while data := source.recv(SIZE):
            destination.sendall(data)
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two is gone


if __name__ == "__main__":
    main()
