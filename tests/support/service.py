"""A service in a process of its own, and a client that speaks HTTP by the standard library."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

LIMIT = 60  # seconds: a hang is an error


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers and bytes."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Service:
    """`srcli serve` on a free port, until the end of a `with` block.

    Args:
        *options: Of the command.
        **environment: Further variables.
    """

    def __init__(self, *options, **environment):
        command = [sys.executable, "-m", "srcli", "serve", "--port", "0", "--log-json", *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.records = []
        self.messages = []
        self._said = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._said.wait(LIMIT):
            self.process.kill()
            raise AssertionError(self.messages)
        (line,) = [m for m in self.messages if m.startswith("listening at ")]
        self.address = line.removeprefix("listening at ")
        self.port = urlsplit(self.address).port

    def _read(self):
        for line in self.process.stderr:
            if not line.startswith("{"):
                self.messages.append(line.rstrip())
                continue
            record = json.loads(line)
            if "message" in record:
                self.messages.append(record["message"])
                if record["message"].startswith("listening at "):
                    self._said.set()
            else:
                self.records.append(record)

    def connect(self, seconds=LIMIT):
        """A connection, for several requests one after the other."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def get(self, path, **headers):
        return self.send("GET", path, None, headers)

    def post(self, path, body, headers=None, **query):
        return self.send("POST", f"{path}?{urlencode(query)}", body, headers or {})

    def send(self, method, path, body, headers, connection=None):
        """Send a request, and return its answer."""
        used = connection or self.connect()
        try:
            used.request(method, path, body, headers)
            response = used.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            if connection is None:
                used.close()

    def memory(self):
        """Bytes of memory that the process has, of its own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    def wait_for(self, name, value):
        """Wait until a gauge has a value."""
        end = time.monotonic() + LIMIT
        while f"\n{name} {value:.1f}\n".encode() not in self.get("/metrics").body:
            assert time.monotonic() < end, self.get("/metrics").body.decode()
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self):
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *details):
        if self.process.poll() is None:
            self.process.kill()
        self.finish()
        self.process.stderr.close()
