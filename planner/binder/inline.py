"""Sources that a query names by URI: `FROM 'file://./x.csv'`. Opens none."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from millrace.errors import MillraceError
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.sources import inline_source
from millrace.planner.dialect import nodes
from millrace.planner.dialect.nodes import position_of
from millrace.planner.logical import Scan

FORMATS = ("json", "csv", "parquet", "arrow")
_ENDINGS = {"jsonl": "json", "ndjson": "json", "json": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet",
            "arrow": "arrow", "feather": "arrow", "ipc": "arrow"}  # fmt: skip


def open_uri(node: nodes.InlineSource) -> Scan:
    """The scan of an inline source; options come from the URI's query and the WITH clause."""
    uri = str(node.args["uri"])
    options = {str(t.expressions[0].this): str(t.expressions[1].this) for t in node.args.get("options") or []}
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    rest, _, query = rest.partition("?")
    options = {**dict(parse_qsl(query)), **options}
    format = options.pop("format", None)
    if scheme in ("file", "s3", "gs", "az", "http", "https"):
        path = rest if scheme == "file" else f"{scheme}://{rest}"
        name = rest.rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0] or "file"
        return _open(node, name, "file", {"path": path, **options}, format or _format(rest))
    if scheme == "kafka":
        parts = urlsplit(uri)
        topic = parts.path.strip("/") or parts.netloc
        servers = {"bootstrap.servers": parts.netloc} if parts.path.strip("/") else {}
        return _open(node, topic, "kafka", {"topic": topic, **servers, **options}, format)
    raise unsupported(node, "MR1952", f"there is no source for {scheme}://", "use file:// or kafka://")


def _open(
    node: nodes.InlineSource, name: str, connector: str, options: dict[str, str], format: str | None
) -> Scan:
    with located(node):
        return inline_source(name, connector, options, format)


def _format(path: str) -> str | None:
    for ending in reversed(path.lower().split(".")[1:]):
        if ending in _ENDINGS:
            return _ENDINGS[ending]
    return None


__all__ = ["FORMATS", "MillraceError", "invalid", "open_uri", "position_of"]
