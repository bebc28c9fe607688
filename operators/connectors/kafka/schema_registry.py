"""A client of schema registries that speak Confluent's REST API. Knows nothing of the schemas' languages."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import cache
from typing import Any

from millrace.errors import Invalid, Unavailable
from millrace.operators.connectors.options import Option, Options
from millrace.operators.spec import serialisable

TIMEOUT_S = 10.0
ATTEMPTS = 3
_TYPE = "application/vnd.schemaregistry.v1+json"

REGISTRY_OPTIONS = (
    Option(
        "schema.registry.url",
        "URL of a schema registry; several, separated by commas, are tried in turn",
        aliases=("avro-confluent.url", "value.avro-confluent.url", "schema-registry.url"),
    ),
    Option("schema.registry.basic.auth.user.info", "user:password for the registry"),
    Option("schema.registry.bearer.auth.token", "a bearer token for the registry"),
    Option(
        "schema.registry.ssl.ca.location",
        "a PEM file of the authorities that the registry's certificate may come from",
        aliases=("schema.registry.ssl.ca",),
    ),
)


@serialisable
@dataclass(frozen=True, slots=True)
class Registry:
    """How to reach a registry; empty text stands for what is not set."""

    urls: tuple[str, ...]
    user: str = ""
    token: str = ""
    authorities: str = ""


@serialisable
@dataclass(frozen=True, slots=True)
class Registered:
    """A schema of the registry: its texts with what it refers to first, by name (its own is empty), and its language."""

    number: int
    language: str
    texts: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> tuple[str, ...]:
        """The texts alone."""
        return tuple(text for _, text in self.texts)


@cache
def client_of(registry: Registry) -> RegistryClient:
    """The process's one client of a registry: every split asks for the same few schemas."""
    return RegistryClient(registry)


def registry_of(options: Options) -> Registry | None:
    """The registry that the options name, or None. Raises Invalid MR1485."""
    urls = tuple(
        u.strip().rstrip("/") for u in (options.text("schema.registry.url") or "").split(",") if u.strip()
    )
    user = options.text("schema.registry.basic.auth.user.info") or ""
    token = options.text("schema.registry.bearer.auth.token") or ""
    authorities = options.text("schema.registry.ssl.ca.location") or ""
    for url in urls:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise Invalid(
                f"option 'schema.registry.url' can not be '{url}'",
                code="MR1485",
                hint="give a URL such as http://registry:8081",
            )
    if not urls:
        if user or token or authorities:
            raise Invalid(
                "there are options of a schema registry, and no registry",
                code="MR1485",
                hint="set 'schema.registry.url'",
            )
        return None
    if user and token:
        raise Invalid(
            "the schema registry is given a user and a bearer token", code="MR1485", hint="keep one of them"
        )
    return Registry(urls, user, token, authorities)


class RegistryClient:
    """Asks a registry and remembers what can not change. Raises Unavailable MR3033, Invalid MR1486 where refused."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[int, Registered] = {}
        self._context: ssl.SSLContext | None = None

    def by_id(self, number: int) -> Registered | None:
        """The schema of this id, or None where the registry has none."""
        known = self._known.get(number)
        if known is None:
            found = self._ask("GET", f"/schemas/ids/{number}")
            if found is None:
                return None
            known = self._known[number] = self._registered(found, number)
        return known

    def latest(self, subject: str) -> Registered | None:
        """The last schema registered under a subject, or None where there is none."""
        found = self._ask("GET", f"/subjects/{urllib.parse.quote(subject, safe='')}/versions/latest")
        return None if found is None else self._registered(found, int(found["id"]))

    def register(self, subject: str, language: str, text: str) -> int:
        """The id of a schema under a subject, which it is registered under where it is not yet."""
        body: dict[str, Any] = {"schema": text}
        if language != "AVRO":
            body["schemaType"] = language
        found = self._ask("POST", f"/subjects/{urllib.parse.quote(subject, safe='')}/versions", body)
        if found is None:
            raise Invalid(
                f"the schema registry has no subject '{subject}'", code="MR1486", hint="check the URL"
            )
        return int(found["id"])

    def _registered(self, found: dict[str, Any], number: int) -> Registered:
        texts: dict[str, str] = {}
        self._references(found.get("references") or [], texts)
        texts[""] = str(found["schema"])
        return Registered(number, str(found.get("schemaType") or "AVRO"), tuple(texts.items()))

    def _references(self, references: list[dict[str, Any]], texts: dict[str, str]) -> None:
        for reference in references:
            name, subject = str(reference["name"]), urllib.parse.quote(str(reference["subject"]), safe="")
            if name in texts:
                continue
            found = self._ask("GET", f"/subjects/{subject}/versions/{int(reference['version'])}")
            if found is None:
                raise Invalid(
                    f"a schema refers to '{name}', which the registry does not have",
                    code="MR1486",
                    hint="register it again",
                )
            self._references(found.get("references") or [], texts)
            texts[name] = str(found["schema"])

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """The answer, or None for 404."""
        failure = ""
        for attempt in range(ATTEMPTS):
            for url in self._registry.urls:
                try:
                    return self._once(method, url + path, body)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failure = f"{url}: {error}"
            time.sleep(0.2 * (attempt + 1))
        raise Unavailable(
            f"the schema registry did not answer: {failure}",
            code="MR3033",
            hint="check 'schema.registry.url'",
        )

    def _once(self, method: str, url: str, body: object) -> dict[str, Any] | None:
        request = urllib.request.Request(url, method=method, headers={"Accept": f"{_TYPE}, application/json"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", _TYPE)
        if self._registry.user:
            word = base64.b64encode(self._registry.user.encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        elif self._registry.token:
            request.add_header("Authorization", f"Bearer {self._registry.token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls(url)) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode(errors="replace")
            if error.code == 404:
                return None
            if error.code >= 500 or error.code == 429:
                raise OSError(f"{error.code} {said}") from None
            raise Invalid(
                f"the schema registry refused {method} {urllib.parse.urlsplit(url).path}: {error.code} {said}",
                code="MR1486",
                hint="check the schema.registry.* options and what changes of a schema the subject allows",
            ) from None

    def _tls(self, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self._registry.authorities or None)
            except (OSError, ssl.SSLError) as error:
                raise Invalid(
                    f"option 'schema.registry.ssl.ca.location' can not be '{self._registry.authorities}': {error}",
                    code="MR1485",
                    hint="name a PEM file",
                ) from None
        return self._context
