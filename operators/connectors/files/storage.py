"""Where files are: local disk and object stores behind one small interface. Knows nothing of what is in them."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from millrace.errors import Invalid, Unavailable

_STORES: dict[str, Any] = {}


def register_store(root: str, store: Any) -> None:
    """Let paths that begin with `root` (such as `memory://bucket`) mean this obstore object, in this process."""
    _STORES[root.rstrip("/")] = store


@dataclass(frozen=True, slots=True)
class FileState:
    """What is known of a file without reading it. `identity` changes when another file takes the name."""

    size: int
    identity: str


class ByteStream(Protocol):
    """Bytes read in order."""

    def read(self, count: int = -1, /) -> bytes:
        """Up to `count` bytes, none at the end."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class Storage(Protocol):
    """Files by name."""

    def list(self) -> list[str]:
        """Names of all files that match, sorted."""
        ...

    def open(self, name: str, offset: int = 0) -> ByteStream:
        """A binary stream from byte `offset`. Raises Unavailable MR3010."""
        ...

    def state(self, name: str) -> FileState | None:
        """Size and identity, or None where there is no such file."""
        ...

    def arrow(self, name: str) -> pa.NativeFile:
        """The file for random access by Arrow. Raises Unavailable MR3010."""
        ...


def storage(path: str) -> Storage:
    """The storage behind a path: a file, a folder, a glob, `file://…` or the URL of an object store.

    Raises Invalid MR1420 where the URL is of no known kind.
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        return LocalStorage(path)
    if scheme.lower() == "file":
        return LocalStorage(unquote(path[len("file://") :]))
    return ObjectStorage(path)


def missing(name: str, error: Exception) -> Unavailable:
    """The error for a file that can't be opened."""
    return Unavailable(
        f"file '{name}' could not be opened: {error}", code="MR3010", hint="check path and rights"
    )


def _hidden(name: str, root: str = "") -> bool:
    """Whether a file, or a folder between it and `root`, is not for readers: it begins with a dot or underscore."""
    inner = name.removeprefix(root).lstrip("/").split("/") if root else [name.rpartition("/")[2]]
    return any(part.startswith((".", "_")) for part in inner) or name.endswith(".tmp")


class LocalStorage:
    """Files of a local folder, a glob or one file."""

    def __init__(self, path: str) -> None:
        self._path = os.path.expanduser(path)

    def list(self) -> list[str]:
        if os.path.isdir(self._path):
            found = [str(p) for p in Path(self._path).rglob("*") if p.is_file()]
            return sorted(name for name in found if not _hidden(name, self._path))
        if os.path.isfile(self._path):
            return [self._path]
        matches = glob.glob(self._path, recursive=True)
        return sorted(name for name in matches if os.path.isfile(name) and not _hidden(name))

    def open(self, name: str, offset: int = 0) -> ByteStream:
        try:
            stream = io.FileIO(name, "rb")
            stream.seek(offset)
        except OSError as error:
            raise missing(name, error) from error
        return stream

    def state(self, name: str) -> FileState | None:
        try:
            found = os.stat(name)
        except OSError:
            return None
        return FileState(found.st_size, f"{found.st_dev}:{found.st_ino}")

    def arrow(self, name: str) -> pa.NativeFile:
        try:
            return pa.OSFile(name, "rb")
        except OSError as error:
            raise missing(name, error) from error


class ObjectStorage:
    """Objects of a store under a prefix, a glob or one object; names are full URLs."""

    def __init__(self, url: str) -> None:
        self.store, self.root, self.prefix = open_store(url)

    def list(self) -> list[str]:
        fixed = self.prefix
        magic = min((fixed.find(c) for c in "*?[" if c in fixed), default=-1)
        folder = fixed[: fixed.rfind("/", 0, magic) + 1] if magic >= 0 else fixed
        found = []
        for page in self.store.list(prefix=folder.rstrip("/") or None):
            found += [str(meta["path"]) for meta in page]
        if magic >= 0:
            found = [name for name in found if fnmatch.fnmatchcase(name, fixed)]
        elif not found and fixed and self._head(fixed) is not None:
            found = [fixed]
        return sorted(f"{self.root}/{name}" for name in found if not _hidden(name, folder))

    def _key(self, name: str) -> str:
        return name.removeprefix(self.root).lstrip("/")

    def _head(self, key: str) -> Any:
        try:
            return self.store.head(key)
        except FileNotFoundError:
            return None

    def open(self, name: str, offset: int = 0) -> ByteStream:
        return _ObjectStream(self.store, self._key(name), name, offset)

    def state(self, name: str) -> FileState | None:
        meta = self._head(self._key(name))
        # Objects are replaced as a whole: an append gives a new tag, so that a tag is no identity.
        return None if meta is None else FileState(int(meta["size"]), "object")

    def arrow(self, name: str) -> pa.NativeFile:
        return pa.PythonFile(_ObjectStream(self.store, self._key(name), name, 0), mode="r")


class _ObjectStream:
    """Reads an object by ranges, as a raw binary file does."""

    def __init__(self, store: Any, key: str, name: str, offset: int) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._at = offset
        self.closed = False
        self._size = self._length()

    def _length(self) -> int:
        try:
            return int(self._store.head(self._key)["size"])
        except Exception as error:
            raise missing(self._name, error) from error

    def read(self, count: int = -1, /) -> bytes:
        if self._at >= self._size:
            self._size = self._length()
        left = self._size - self._at
        count = left if count is None or count < 0 else min(count, left)
        if count <= 0:
            return b""
        try:
            data = bytes(self._store.get_range(self._key, start=self._at, length=count))
        except Exception as error:
            raise missing(self._name, error) from error
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


def open_store(url: str) -> tuple[Any, str, str]:
    """The obstore object of a URL, the root that names begin with, and the rest. Raises Invalid MR1420."""
    for root, store in _STORES.items():
        if url == root or url.startswith(f"{root}/"):
            return store, root, url[len(root) :].strip("/")
    # obstore is needed by paths in object stores only.
    import obstore.store

    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}"
    try:
        if parts.scheme == "memory":
            store = obstore.store.MemoryStore()
            register_store(root, store)
        else:
            store = obstore.store.from_url(root)
    except Exception as error:
        raise Invalid(
            f"'{url}' is no path or URL of a store: {error}",
            code="MR1420",
            hint="use a local path, file://, s3://, gs:// or az://",
        ) from error
    return store, root, parts.path.strip("/")
