"""A real PostgreSQL server for tests, in a temporary folder on a free loopback port."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.broker import free_port


def binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, or None."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def require() -> Path:
    """The binaries; skips the calling test, by name and reason, where there are none; with CI=true that is a failure."""
    found = binaries()
    if found is not None:
        return found
    reason = "PostgreSQL tests need a server: there is no 'initdb' (Debian: apt-get install postgresql)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class Server:
    """One server; its data outlives a restart."""

    def __init__(self) -> None:
        self._binaries = require()
        self._folder = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
        self._user = (
            "postgres" if getpass.getuser() == "root" else getpass.getuser()
        )  # it refuses to run as root
        if self._user == "postgres":
            shutil.chown(self._folder, "postgres")
        self._port = free_port()
        self.url = f"postgresql://{self._user}@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", self._user, "--no-sync")
        self.start()

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """End it: `immediate` is as if it had crashed."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", mode, "-w", "stop")

    def close(self) -> None:
        """End it and delete its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user if self._user != getpass.getuser() else None
        subprocess.run(
            [str(self._binaries / program), *arguments],
            check=True, timeout=120, user=user, cwd=self._folder, stdout=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip


def running() -> Iterator[Server]:
    """A server for as long as the caller needs one."""
    require()
    server = Server()
    try:
        yield server
    finally:
        server.close()
