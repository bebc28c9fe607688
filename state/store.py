"""Objects by key in a local folder, S3, GCS, Azure or memory: created once, never overwritten. Knows no format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, MemoryStore, from_url

from millrace.errors import Invalid, MillraceError, Unavailable

SCHEMES = ("file", "s3", "gs", "az", "memory")
_MEMORIES: dict[str, Any] = {}


class Store(Protocol):
    """What keeps objects. Keys are `/`-separated paths; every method raises `Unavailable` where nothing answers."""

    def create(self, key: str, data: bytes) -> bool:
        """Put an object where there is none; False where there is one already, which stays as it is.

        After `Unavailable` the object may exist all the same.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """`length` bytes from byte `start`, or None where there is no such object."""
        ...

    def list(self, prefix: str, after: str | None = None) -> list[str]:
        """Keys under the folder `prefix`, ascending; those greater than `after` where that is given."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are passed over."""
        ...


class ObjectStore:
    """A `Store` over obstore. Objects of a local folder are on disk (fsync) when `create` returns."""

    def __init__(self, backend: Any, url: str, folder: Path | None = None) -> None:
        self._backend = backend
        self._folder = folder
        self.url = url

    def __repr__(self) -> str:
        return f"ObjectStore({self.url})"

    def create(self, key: str, data: bytes) -> bool:
        try:
            obstore.put(self._backend, key, data, mode="create")
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as error:
            raise self._failed("write", key, error) from error
        if self._folder is not None:
            self._sync(self._folder / key)
        return True

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._backend, key).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failed("read", key, error) from error

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        if length == 0:
            return b""
        try:
            return bytes(obstore.get_range(self._backend, key, start=start, length=length))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._failed("read", key, error) from error

    def list(self, prefix: str, after: str | None = None) -> list[str]:
        try:
            found = [
                str(entry["path"])
                for chunk in obstore.list(self._backend, prefix=prefix, offset=after, chunk_size=1000)
                for entry in chunk
            ]
        except FileNotFoundError:
            return []
        except (BaseError, OSError) as error:
            raise self._failed("list", prefix, error) from error
        return sorted(key for key in found if after is None or key > after)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            try:
                obstore.delete(self._backend, key)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise self._failed("delete", key, error) from error

    def _sync(self, path: Path) -> None:
        for place in (path, path.parent):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _failed(self, verb: str, key: str, error: Exception) -> MillraceError:
        reason = str(error).split("\n", 1)[0]
        message = f"the store {self.url} did not {verb} {key}: {reason}"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
            return Invalid(message, code="MR1411", hint="check the credentials and the rights of the store")
        return Unavailable(
            message, code="MR3001", hint="check that the store can be reached; it is tried again"
        )


def open_store(url: str, options: Mapping[str, str] | None = None) -> ObjectStore:
    """The store at `file:///…`, `s3://bucket/…`, `gs://…`, `az://…` or `memory://name` (shared in the process).

    `options` go to obstore as they are (endpoint, region, credentials, …). Raises `Invalid`.
    """
    scheme, mark, place = url.partition("://")
    if scheme not in SCHEMES or not mark:
        raise Invalid(
            f"{url!r} is not a store",
            code="MR1410",
            hint="give one of " + ", ".join(f"{known}://…" for known in SCHEMES),
        )
    if scheme == "memory":
        return ObjectStore(_MEMORIES.setdefault(place, MemoryStore()), url)
    try:
        if scheme == "file":
            folder = Path(unquote(place)).absolute()
            return ObjectStore(LocalStore(prefix=str(folder), mkdir=True), url, folder)
        config: Any = dict(options or {})  # its keys differ by store
        return ObjectStore(from_url(url, config=config), url)
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise Invalid(
            f"the store {url!r} can not be opened: {reason}", code="MR1410", hint="check its url and options"
        ) from error
