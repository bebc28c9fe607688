"""Where sealed files wait and where they are shown: a local folder, an object store, or one local file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from millrace.errors import Corrupt, Invalid, Unsupported
from millrace.operators.connectors.files.parts import sync
from millrace.operators.connectors.files.storage import open_store

STAGING = "_staging"


class Place(Protocol):
    """Takes finished local files through three steps: written, sealed, shown."""

    work: str
    """Local folder for files that are being written."""

    def seal(self, temporary: str, staged: str) -> None:
        """Keep a finished file of `work` under the name `staged`, durably."""
        ...

    def show(self, checkpoint: int, files: list[tuple[str, str]]) -> None:
        """Make sealed files visible: pairs of staged and final name. Repeating it changes nothing."""
        ...

    def sealed(self) -> list[str]:
        """Names of the files that are sealed and not shown."""
        ...

    def forget(self, staged: str) -> None:
        """Drop a sealed file that is never to be shown."""
        ...

    def close(self) -> None:
        """Remove what is empty."""
        ...


class FolderPlace:
    """A local folder; staged files wait in its `_staging`, and are shown by a link that can't overwrite."""

    def __init__(self, root: str, partition: int) -> None:
        self._root = Path(os.path.expanduser(root))
        self._staging = self._root / STAGING
        self._staging.mkdir(parents=True, exist_ok=True)
        self.work = str(self._staging)
        for left in self._staging.glob(f"open-{partition}-*.tmp"):
            left.unlink(missing_ok=True)

    def seal(self, temporary: str, staged: str) -> None:
        os.rename(temporary, self._staging / staged)
        sync(str(self._staging))

    def show(self, checkpoint: int, files: list[tuple[str, str]]) -> None:
        for staged, final in files:
            source, target = self._staging / staged, self._root / final
            if not source.exists():
                if target.exists():
                    continue
                raise lost(str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except FileExistsError:
                if not os.path.samefile(source, target):
                    raise taken(str(target)) from None
            sync(str(target.parent))
            source.unlink()

    def sealed(self) -> list[str]:
        return [p.name for p in self._staging.glob("sealed-*")] if self._staging.exists() else []

    def forget(self, staged: str) -> None:
        (self._staging / staged).unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._staging.rmdir()


class StorePlace:
    """A prefix in an object store; staged objects are shown by a put that can't overwrite."""

    def __init__(self, url: str, partition: int) -> None:
        self._store, self._url, prefix = open_store(url)
        self._prefix = f"{prefix}/" if prefix else ""
        self.work = tempfile.mkdtemp(prefix=f"millrace-{partition}-")

    def _staged(self, name: str) -> str:
        return f"{self._prefix}{STAGING}/{name}"

    def seal(self, temporary: str, staged: str) -> None:
        with open(temporary, "rb") as source:
            self._store.put(self._staged(staged), source)
        os.unlink(temporary)

    def show(self, checkpoint: int, files: list[tuple[str, str]]) -> None:
        for staged, final in files:
            target = self._prefix + final
            data = self._read(self._staged(staged))
            if data is None:
                if self._read(target) is None:
                    raise lost(f"{self._url}/{target}")
                continue
            try:
                self._store.put(target, data, mode="create")
            except Exception as error:
                # Stores name this failure differently: what counts is whether the object is there with our bytes.
                found = self._read(target)
                if found is None:
                    raise
                if found != data:
                    raise taken(f"{self._url}/{target}") from error
            self._store.delete(self._staged(staged))

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(self._store.get(key).bytes())
        except FileNotFoundError:
            return None

    def sealed(self) -> list[str]:
        names: list[str] = []
        for page in self._store.list(prefix=f"{self._prefix}{STAGING}"):
            names += [str(meta["path"]).rpartition("/")[2] for meta in page]
        return names

    def forget(self, staged: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._store.delete(self._staged(staged))

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


class OneFilePlace:
    """One local file that grows by each publish; what it holds is always whole checkpoints.

    A marker says up to which checkpoint it grew: beside text (with the size, so that a torn append is cut off), inside
    Parquet and Arrow files, which are written anew and replaced in one step. A file that an earlier run of Millrace
    wrote is replaced; one that something else wrote is refused (Invalid MR1436) unless `overwrite`.
    """

    def __init__(self, path: str, partition: int, format: str, overwrite: bool) -> None:
        expanded = Path(os.path.expanduser(path))
        if partition:
            expanded = expanded.with_name(f"{expanded.stem}-{partition}{expanded.suffix}")
        self._path = expanded
        self._columnar = format if format in ("parquet", "arrow") else None
        self._csv = format == "csv"
        self._overwrite = overwrite
        expanded.parent.mkdir(parents=True, exist_ok=True)
        self._staging = expanded.with_name(f".{expanded.name}.staging")
        self._staging.mkdir(exist_ok=True)
        self.work = str(self._staging)
        self._marker_path = expanded.with_name(f".{expanded.name}.millrace")
        for left in self._staging.glob("open-*.tmp"):
            left.unlink(missing_ok=True)

    def seal(self, temporary: str, staged: str) -> None:
        os.rename(temporary, self._staging / staged)
        sync(str(self._staging))

    def show(self, checkpoint: int, files: list[tuple[str, str]]) -> None:
        marker = self._marker()
        if marker is None and self._path.exists() and not self._overwrite:
            raise taken(str(self._path))
        shown: list[str] = [] if marker is None else marker["files"]
        names = [staged for staged, _ in files]
        if names and all(name in shown for name in names):
            for name in names:
                self.forget(name)
            return
        if marker is None or marker["checkpoint"] >= checkpoint:
            marker = {"checkpoint": 0, "size": 0, "files": []}
        for name in names:
            if not (self._staging / name).exists():
                raise lost(str(self._path))
        after = {"checkpoint": checkpoint, "size": 0, "files": [*marker["files"], *names][-1000:]}
        if self._columnar is not None:
            self._rewrite(names, after, keep=bool(marker["files"]))
        else:
            self._append(names, after, int(marker["size"]))
        for name in names:
            self.forget(name)

    def _append(self, names: list[str], after: dict[str, Any], size: int) -> None:
        with open(self._path, "r+b" if self._path.exists() else "w+b") as out:
            out.truncate(size)
            out.seek(size)
            for name in names:
                with open(self._staging / name, "rb") as part:
                    if self._csv and out.tell():
                        part.readline()
                    shutil.copyfileobj(part, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
            after["size"] = out.tell()
        self._replace(self._marker_path, json.dumps(after).encode())

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = self._staging / "open-marker.tmp"
        temporary.write_bytes(data)
        sync(str(temporary))
        os.replace(temporary, path)
        sync(str(path.parent))

    def _rewrite(self, names: list[str], after: dict[str, Any], keep: bool) -> None:
        sources = [str(self._path)] if keep and self._path.exists() else []
        sources += [str(self._staging / name) for name in names]
        temporary = self._staging / "open-whole.tmp"
        text = json.dumps(after)
        parquet = self._columnar == "parquet"
        writer: Any = None
        schema: Any = None
        with pa.OSFile(str(temporary), "wb") as out:
            for source in sources:
                for batch in _batches(source, parquet):
                    if writer is None:
                        known = batch.schema.metadata or {}
                        schema = batch.schema.with_metadata({**known, b"millrace": text.encode()})
                        writer = pq.ParquetWriter(out, schema) if parquet else pa.ipc.new_file(out, schema)
                    writer.write_batch(batch.replace_schema_metadata(schema.metadata))
            if writer is not None:
                writer.close()
        if writer is not None:
            sync(str(temporary))
            os.replace(temporary, self._path)
            sync(str(self._path.parent))

    def _marker(self) -> dict[str, Any] | None:
        try:
            if self._columnar is None:
                return dict(json.loads(self._marker_path.read_bytes()))
            if not self._path.exists():
                return None
            if self._columnar == "parquet":
                metadata = pq.read_schema(str(self._path)).metadata
            else:
                with pa.OSFile(str(self._path), "rb") as source:
                    metadata = pa.ipc.open_file(source).schema.metadata
            text = (metadata or {}).get(b"millrace")
            return None if text is None else dict(json.loads(text))
        except (OSError, ValueError, pa.ArrowException):
            return None

    def sealed(self) -> list[str]:
        return [p.name for p in self._staging.glob("sealed-*")] if self._staging.exists() else []

    def forget(self, staged: str) -> None:
        (self._staging / staged).unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._staging.rmdir()


def _batches(path: str, parquet: bool) -> Any:
    if parquet:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=65_536, use_threads=False)
        return
    with pa.OSFile(path, "rb") as source:
        file = pa.ipc.open_file(source)
        for i in range(file.num_record_batches):
            yield file.get_batch(i)


def lost(path: str) -> Corrupt:
    """A sealed file is neither staged nor shown."""
    return Corrupt(
        f"'{path}' can not be published: its sealed file is gone",
        code="MR5018",
        hint="was the _staging folder cleaned by hand? restore an older checkpoint",
    )


def taken(path: str) -> Invalid:
    """Another file has the name."""
    return Invalid(
        f"file '{path}' exists and is not this job's",
        code="MR1436",
        hint="choose another path, remove the file, or set 'overwrite' = 'true' for one file",
    )


def place(path: str, partition: int, format: str, one_file: bool, overwrite: bool) -> Place:
    """The place behind a sink's path. Raises Unsupported MR1912 for one file in an object store."""
    scheme, separator, rest = path.partition("://")
    local = not separator or scheme.lower() == "file"
    folder = unquote(rest) if separator else path
    if one_file:
        if not local:
            raise Unsupported(
                f"'{path}' is one file in an object store, which can not grow",
                code="MR1912",
                hint="give a folder",
            )
        return OneFilePlace(folder, partition, format, overwrite)
    return FolderPlace(folder, partition) if local else StorePlace(path, partition)
