"""A wire to a server on this machine that can be cut."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress


class Wire:
    """A proxy of TCP connections to a port of this machine.

    Args:
        port: Of the server.
    """

    def __init__(self, port):
        self._to = port
        self._open = []
        self.whole = True
        self.most = None
        """Bytes of requests that pass before the wire breaks; None for any."""

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Break all connections, and refuse new ones."""
        self.whole = False
        for one in self._open:
            with suppress(
                OSError
            ):  # by a reset: after an orderly end a server takes half a request
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
        self._open.clear()

    def mend(self):
        """Let connections pass again."""
        self.whole, self.most = True, None

    def close(self):
        self.cut()
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for pair in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, sink, is_request):
        with suppress(OSError):
            while content := source.recv(1 << 14):
                if is_request and self.most is not None:
                    if len(content) > self.most:
                        sink.sendall(content[: self.most])
                        self.cut()
                        return
                    self.most -= len(content)
                sink.sendall(content)
        for end in (source, sink):
            with suppress(OSError):
                end.close()
