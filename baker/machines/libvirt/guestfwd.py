"""Connect a guest's connection, which is stdin and stdout, to a port of this host's loopback. QEMU runs this once per connection."""

import os
import socket
import sys
import threading

SIZE = 1 << 16


def main() -> None:
    guest = socket.socket(fileno=os.dup(0))
    with guest, socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as proxy:
        threading.Thread(target=copy, args=(guest, proxy), daemon=True).start()
        copy(proxy, guest)  # the program ends when the proxy has closed its side


def copy(source: socket.socket, destination: socket.socket) -> None:
    """Copy all data, then close the destination for writing."""
    try:
        while data := source.recv(SIZE):
            destination.sendall(data)
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side closed the connection


if __name__ == "__main__":
    main()
