"""Encryption of the exchange: certificates as files that every node has. Opens no connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.errors import Invalid
from millrace.operators.spec import serialisable


@serialisable
@dataclass(frozen=True, slots=True)
class ExchangeTls:
    """Partitions show each other `certificate` (with its `key`), which must be signed by `authority`: paths of PEM files.

    Certificates are issued for `name`, whatever the address of the node.
    """

    certificate: str
    key: str
    authority: str
    name: str = "millrace"

    def server(self) -> dict[str, Any]:
        """What a Flight server is made with: it refuses whoever shows no certificate."""
        return {
            "tls_certificates": [(_read(self.certificate), _read(self.key))],
            "verify_client": True,
            "root_certificates": _read(self.authority),
        }

    def client(self) -> dict[str, Any]:
        """What a Flight client is made with."""
        return {
            "tls_root_certs": _read(self.authority),
            "cert_chain": _read(self.certificate),
            "private_key": _read(self.key),
            "override_hostname": self.name,
        }


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Invalid(
            f"{path} can not be read on this node: {error.strerror}",
            code="MR1599",
            hint="put the certificates of the exchange under the same path on every node",
        ) from error
