"""What a study's folder can do without: cells that were cut short, checkpoints, decoded data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ablations.store import CHECKPOINT, TRIALS, Store, study_folders
from ablations.store.leases import remove_tree


@dataclass(frozen=True)
class Leftover:
    """Something that can be removed.

    Args:
        path: a file or a folder.
        what: what it is, and what its loss costs.
    """

    path: Path
    what: str

    @property
    def num_bytes(self) -> int:
        """Its size."""
        files = [path for path in self.path.rglob("*") if path.is_file()] if self.path.is_dir() else [self.path]
        return sum(path.stat().st_size for path in files)

    def remove(self) -> None:
        """Remove it."""
        if self.path.is_dir():
            remove_tree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find_leftovers(store: Store, *, cached: Callable[[str], Iterable[Path]]) -> list[Leftover]:
    """Find what can be removed; what a live runner holds or needs is left alone.

    Args:
        store: the study's folder.
        cached: from a data set's fingerprint to its decoded files in the cache.

    Raises:
        UsageError: there is no study, or a record that cannot be read.
    """
    study, records = store.read_study(), store.records().values()
    begun = [Leftover(path, "a cell that was cut short; it will start anew") for path in store.leases.left_behind()]
    checkpoints = [
        Leftover(record.folder / CHECKPOINT, "checkpoint of a failed cell; another try will start anew")
        for record in records
        if (record.folder / CHECKPOINT).exists()
    ]
    fingerprints = {record.config.images.data_fingerprint for record in records}
    fingerprints |= {point["data_fingerprint"] for point in study.data_points.values()}
    own = store.folder.resolve()
    beside = [Store(folder) for folder in study_folders(own.parent.parent if own.name == TRIALS else own.parent)]
    if any(any(other.leases.running()) for other in beside):  # who loads the decoded data
        return begun + checkpoints
    decoded = [
        Leftover(path, "decoded data; other studies may use it, and it will be decoded anew")
        for fingerprint in sorted(fingerprints)
        for path in cached(fingerprint)
    ]
    return begun + checkpoints + decoded
