"""Which objects of a job nothing needs any more. Never removes what a kept checkpoint or an outbox still needs."""

from __future__ import annotations

from millrace.state.checkpoints.manifest import Manifest, decode_manifest
from millrace.state.checkpoints.snapshots import data_prefix, number_of_key
from millrace.state.ledger import JobState
from millrace.state.store import Store


class Pruner:
    """Deletes what lies behind the last decided checkpoint and is named by nothing that is kept.

    What a later checkpoint may still name has a later number, or is named by the last decided manifest: chains
    only grow from there. Manifests it has read are remembered.
    """

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._job = job
        self._known: dict[str, Manifest] = {}

    def prune(self, state: JobState) -> int:
        """Delete; answers how many objects. Raises `Corrupt` or `Unavailable`, and has then deleted nothing needed.

        Published outboxes of kept checkpoints stay: who restores an older one may have to publish them again.
        """
        latest = state.latest
        if latest is None:
            return 0
        named = {decided.manifest for decided in (*state.checkpoints, *state.savepoints.values())}
        self._known = {key: self._manifest(key) for key in named}
        kept = {ref.key for manifest in self._known.values() for ref in manifest.objects()}
        gone = [
            key
            for key in self._store.list(data_prefix(self._job))
            if key not in kept and number_of_key(self._job, key) < latest.number
        ]
        gone += [
            key
            for key in self._store.list(f"{self._job}/manifests")
            if key not in named and key < latest.manifest
        ]
        self._store.delete(gone)
        return len(gone)

    def _manifest(self, key: str) -> Manifest:
        return self._known.get(key) or read_manifest(self._store, key)


def read_manifest(store: Store, key: str) -> Manifest:
    """The manifest at `key`; raises `Corrupt` naming it where it is missing or damaged."""
    data = store.get(key)
    return decode_manifest(data if data is not None else b"", key if data is not None else f"{key} (missing)")
