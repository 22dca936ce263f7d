"""Find and remove files that a study no longer needs: unfinished cells, checkpoints, decoded data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.store import CHECKPOINT, TRIALS, Store, study_folders
from ablations.store.arrays import SLURM, read_array, states
from ablations.store.leases import LEASE, remove_tree
from ablations.store.reading import exists

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftover:
    """A removable file or folder.

    Args:
        path: path of the file or folder.
        description: its content, and the consequence of removing it.
    """

    path: Path
    description: str

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        files = [path for path in self.path.rglob("*") if path.is_file()] if self.path.is_dir() else [self.path]
        return sum(path.stat().st_size for path in files)

    def remove(self) -> None:
        """Remove the file or folder."""
        if self.path.is_dir():
            remove_tree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find_leftovers(store: Store, *, cached: Callable[[str], Iterable[Path]]) -> list[Leftover]:
    """Find removable files, except those that a running study uses.

    Args:
        store: folder of the study.
        cached: function from a data set's fingerprint to its decoded files in the cache.

    Raises:
        UsageError: there is no study, or a record cannot be read.
    """
    store.check_writable()
    study, records = store.read_study(), store.records().values()
    unfinished = [Leftover(path, "unfinished cell; it will restart") for path in store.leases.abandoned()]
    kept = [record.folder / CHECKPOINT for record in records]
    checkpoints = [Leftover(p, "checkpoint of a failed cell; a retry will restart") for p in kept if p.exists()]
    fingerprints = {record.config.images.data_fingerprint for record in records}
    fingerprints |= {point["data_fingerprint"] for point in study.data_points.values()}
    if _is_any_running(real_path(store.folder)):  # it uses the decoded data
        return unfinished + checkpoints
    array, jobs = read_array(store.folder), store.folder / SLURM
    if jobs.exists() and (array is None or not states(array)):
        checkpoints.append(Leftover(jobs, "logs of Slurm's tasks; one that still waits in a queue needs them"))
    files = [path for fingerprint in sorted(fingerprints) for path in cached(fingerprint)]
    decoded = [Leftover(path, "decoded data; other studies may use it, and will decode it again") for path in files]
    return unfinished + checkpoints + decoded


def _is_any_running(own: Path) -> bool:
    """Tell whether cells of a study, or of one beside it, are running or may be, since they cannot be read.

    Args:
        own: folder of the study.
    """
    try:
        beside = study_folders(own.parent.parent if own.name == TRIALS else own.parent)
    except UsageError as error:
        LOG.warning("%s; its studies may be running: decoded data are kept", error)
        return True
    for other in map(Store, beside):
        try:
            other.cell_folders()
            for folder in (other.leases.partials, *other.leases.partials.glob("*.*")):
                exists(folder / LEASE)
        except UsageError as error:
            LOG.warning("%s; its cells may be running: decoded data are kept", error)
            return True
        if any(other.leases.running()):
            return True
    return False
