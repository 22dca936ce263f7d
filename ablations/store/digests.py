"""Digests of a cell's files in its record, so that a reader can tell which file is not what the run wrote.

They find damage and later edits. They are no signature: who changes a file can change its digest too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.config import UsageError
from ablations.store.leases import CHECKPOINT, LEASE, RESUMED
from ablations.store.outcome import FILE_NAME
from ablations.store.reading import check_inside, exists, read_bytes, read_json, reason_of
from ablations.store.record import CellRecord, read_record

OUTCOME = "outcome.json"

CHANGING = (CHECKPOINT, LEASE, RESUMED)
"""Files that a finished cell loses."""

LARGE_SUFFIX = ".safetensors"
"""Suffix of weights, which are checked only when they are loaded: they may be large, and a reader may delete them."""


def with_digests(outcome: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return an outcome with the SHA-256 digests of its cell's files, and of itself without its own digest.

    Args:
        outcome: content of outcome.json.
        folder: folder of the cell, with all other files.
    """
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    kept = {name: path for name, path in found.items() if name not in (OUTCOME, *CHANGING) and _is_kept(name)}
    digests = {}
    for name, path in kept.items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return with_own_digest({**outcome, "digests": digests})


def with_own_digest(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome whose other digests are known with the digest of itself."""
    return {**outcome, "digests": {**outcome["digests"], OUTCOME: _digest_of_outcome(outcome)}}


def altered_files(record: CellRecord) -> Iterator[str]:
    """Say of each file of a finished cell that is not what the run wrote, in one line with its name.

    Cells of earlier versions have no digests.

    Args:
        record: record of the cell.
    """
    found = list(_altered(record))
    with contextlib.suppress(OSError, ValueError):
        if found and read_json(record.folder / OUTCOME) != record.outcome:
            return  # a runner has just replaced the cell
    yield from found


def check_weights(folder: Path, name: str) -> None:
    """Check weights that are about to be loaded against the record of their cell, if it has their digest.

    Args:
        folder: folder of a finished cell, or of a copy of its weights alone.
        name: name of the file.

    Raises:
        UsageError: they are not what the run wrote, or they or the record cannot be read.
    """
    if not exists(folder / OUTCOME):
        return
    if (digest := read_record(folder).outcome.get("digests", {}).get(name)) is None:
        return
    try:
        with (folder / name).open("rb") as file:
            have = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{folder / name} cannot be read: {reason_of(error)}") from error
    if have != digest:
        raise UsageError(f"{folder / name} is not what the run wrote: its SHA-256 is another than in the record")


def _altered(record: CellRecord) -> Iterator[str]:
    folder, outcome = record.folder, record.outcome
    for name, digest in outcome.get("digests", {}).items():
        path = folder / name
        if path.suffix == LARGE_SUFFIX:
            continue
        try:
            if path.parent != folder:
                check_inside(path, folder)
            have = _digest_of_outcome(outcome) if name == OUTCOME else hashlib.sha256(read_bytes(path)).hexdigest()
        except FileNotFoundError:
            yield f"{name} is missing, which the run wrote"
        except OSError as error:
            yield f"{name} cannot be read: {reason_of(error)}"
        except UsageError as error:
            yield f"{name} cannot be read: {error}"
        else:
            if have != digest:
                yield f"{name} is not what the run wrote: its SHA-256 is another than in the record"


def _is_kept(name: str) -> bool:
    """Tell whether a file is a cell's own and stays; other names could not be read back."""
    return re.fullmatch(FILE_NAME, name) is not None and not name.endswith(".partial")


def _digest_of_outcome(outcome: Mapping[str, Any]) -> str:
    others = {name: digest for name, digest in outcome["digests"].items() if name != OUTCOME}
    text = json.dumps({**outcome, "digests": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
