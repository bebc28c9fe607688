"""An S3-compatible server for tests, in a process of its own on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from urllib.error import URLError

from tests.e2e.broker import free_port


class Server:
    """The server; `environment` is what clients need to find it."""

    def __init__(self) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        program = "from moto.server import main; import sys; sys.exit(main())"
        host, port = self._url.removeprefix("http://").split(":")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, "-H", host, "-p", port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ALLOW_HTTP": "true",
        }
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(URLError, OSError), urllib.request.urlopen(f"{self._url}/moto-api/"):
                return
            assert self._process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    def bucket(self) -> str:
        """A new bucket."""
        name = f"b-{uuid.uuid4().hex[:10]}"
        with urllib.request.urlopen(urllib.request.Request(f"{self._url}/{name}", method="PUT")):
            return name

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def running() -> Iterator[Server]:
    """A server, and the environment of this process set to it."""
    server = Server()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        server.close()
