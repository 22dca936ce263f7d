"""Which results a written report shows, so that one that is current is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from ablations.analysis.results import FRAMES, Results
from ablations.store import write_json
from ablations.store.provenance import hash_sources
from ablations.store.reading import read_json

NAME = "report.json"
"""File that says what a report was made from."""

FilePath = Annotated[str, Field(pattern=r"^((tables|figures)/)?\w[\w.=+-]*$", max_length=255)]


class _Made(BaseModel, strict=True):
    """Content of the file."""

    format: Literal[1]
    made_from: str
    full: bool
    files: list[FilePath]


@dataclass(frozen=True)
class Written:
    """A report that was written and is whole.

    Args:
        made_from: hash of what it shows, by `hash_results`.
        is_full: whether it has every figure.
        files: paths of its files.
    """

    made_from: str
    is_full: bool
    files: list[Path]


def hash_results(results: Results) -> str:
    """Hash everything that a report shows, and the sources that draw it.

    Args:
        results: results of one study or of several.
    """
    digest = hashlib.sha256(hash_sources().encode())
    studies = [study.model_dump(mode="json") for study in results.studies]
    said = [
        mpl.__version__,
        results.reference,
        results.problems,
        results.caveats,
        [str(s.folder) for s in results.strata],
    ]
    digest.update(json.dumps([studies, said]).encode())
    for frame in (*(getattr(results, name) for name in FRAMES), results.trials):
        digest.update(",".join(frame.columns).encode())
        for name in frame:
            digest.update(pd.util.hash_pandas_object(_hashable(frame[name]), index=False).to_numpy().tobytes())
    return digest.hexdigest()


def read_written(folder: Path) -> Written | None:
    """Return the report in a folder; None if there is none, or one of its files is missing.

    Args:
        folder: folder of the report.
    """
    try:
        made = _Made.model_validate(read_json(folder / NAME))
    except (OSError, ValueError):
        return None
    files = [folder / name for name in made.files]
    is_whole = all(path.is_file() and not path.is_symlink() for path in files)
    return Written(made.made_from, made.full, files) if is_whole else None


def note_written(folder: Path, *, made_from: str, is_full: bool, files: Iterable[Path]) -> None:
    """Write down what a report shows, once all its files are written."""
    names = [path.relative_to(folder).as_posix() for path in files]
    write_json(folder / NAME, _Made(format=1, made_from=made_from, full=is_full, files=names).model_dump())


def _hashable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column whose arrays and lists are written as text or bytes."""
    if column.dtype != object:
        return column
    return column.map(lambda value: value.tobytes() if isinstance(value, np.ndarray) else repr(value))
