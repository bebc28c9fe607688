"""A schema registry for tests: an HTTP server with the part of Confluent's REST API that clients read and write by.

It stands in for the registry service itself, which is not in Maven Central and not under a free licence.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class SchemaRegistry:
    """Subjects with their versions; `asked` are the requests in order, `authorization` what every one must say."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.authorization: str | None = None
        self.url = ""

    def add(
        self, subject: str, schema: str | dict[str, Any], type: str = "AVRO", references: Any = ()
    ) -> int:
        """The id of a schema, registered under a subject where it is not yet."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        entry = {"schema": text, "schemaType": type, "references": list(references)}
        number = next((n for n, known in self.schemas.items() if known == entry), len(self.schemas) + 1)
        self.schemas[number] = entry
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        """What the service says; None is 404."""
        match method, [unquote(part) for part in path.strip("/").split("/")]:
            case "GET", ["schemas", "ids", number]:
                return self.schemas.get(int(number))
            case "GET", ["subjects", subject, "versions", version] if subject in self.subjects:
                versions = self.subjects[subject]
                place = len(versions) if version == "latest" else int(version)
                if not 1 <= place <= len(versions):
                    return None
                number = versions[place - 1]
                return {"subject": subject, "version": place, "id": number, **self.schemas[number]}
            case "POST", ["subjects", subject, "versions"]:
                assert body is not None
                found = self.add(
                    subject, body["schema"], body.get("schemaType", "AVRO"), body.get("references", ())
                )
                return {"id": found}
        return None


@contextmanager
def running() -> Iterator[SchemaRegistry]:
    """A registry on a free loopback port, for the length of a block."""
    registry = SchemaRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any] | None) -> None:
            registry.asked.append(f"{self.command} {self.path}")
            found, status = None, 404
            if registry.authorization not in (None, self.headers.get("Authorization")):
                status = 401
            else:
                found = registry.answer(self.command, self.path, body)
            text = json.dumps(found or {"error_code": status, "message": "no"}).encode()
            self.send_response(200 if found else status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
