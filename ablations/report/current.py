"""Which results a written report shows, so that one that is current is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, field_validator

from ablations.analysis.results import Results
from ablations.analysis.strata import FRAMES
from ablations.config.packages import package_version
from ablations.config.paths import real_path
from ablations.report.page import TEMPLATE, commands, rebuild_command, unsuccessful
from ablations.store import write_json
from ablations.store.provenance import hash_sources
from ablations.store.reading import read_bytes, read_json
from ufo.norms import NORMS

NAME = "report.json"
"""File that says what a report was made from."""

FOLDERS = ("", "tables", "figures")
"""Folders of a report's files."""

ALWAYS = {"results.csv", "report.html"}
"""Files that every report has."""

LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "scipy")
"""Packages that compute, draw or write what a report shows."""


class _Made(BaseModel, strict=True):
    """Content of the file: the files have their SHA-256."""

    format: Literal[1]
    made_from: str
    commands: str
    place: str
    ref: str | None
    full: bool
    num_left_out: int
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _are_of_a_report(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            folder, _, own = name.rpartition("/")
            if folder not in FOLDERS or not own or own.startswith(".") or "\\" in own:
                raise ValueError(f"{name} is no file of a report")
        if not files.keys() >= ALWAYS:
            raise ValueError("it names no report")
        return files


@dataclass(frozen=True)
class Written:
    """A report that was written and is whole.

    Args:
        made_from: hash of what it shows, by `hash_results`.
        commands: hash of the commands that it shows, by `hash_commands`.
        place: hash of the folders of its studies, by `hash_place`.
        ref: the arm that the others are compared with; None if there is none.
        is_full: whether it has every figure.
        num_left_out: number of figures that were not drawn, since there are so many.
        files: paths of its files.
    """

    made_from: str
    commands: str
    place: str
    ref: str | None
    is_full: bool
    num_left_out: int
    files: list[Path]


def hash_results(results: Results) -> str:
    """Hash everything that a report shows but commands, and the sources that draw it.

    Args:
        results: results of one study or of several.
    """
    digest = hashlib.sha256(hash_sources().encode())
    studies = [study.model_dump(mode="json") for study in results.studies]
    unknown = [norm for study in results.studies for norm in study.axes["norm"] if norm not in NORMS]
    template = TEMPLATE.read_text(encoding="utf-8")
    how = [[package_version(library) for library in LIBRARIES], template]
    said = [results.reference, results.problems, results.caveats, unknown, unsuccessful(results)]
    digest.update(json.dumps([studies, how, said]).encode())
    for path in results.examples["path"].dropna().unique():
        digest.update(read_bytes(Path(str(path))))
    frames = {name: getattr(results, name) for name in FRAMES} | {"trials": results.trials}
    frames["examples"] = results.examples.drop(columns="path")  # the images are in it
    for frame in frames.values():
        digest.update(",".join(frame.columns).encode())
        for name in frame:
            digest.update(pd.util.hash_pandas_object(_hashable(frame[name]), index=False).to_numpy().tobytes())
    return digest.hexdigest()


def hash_commands(results: Results) -> str:
    """Hash the commands that a report shows, which change with the place of a study."""
    return hashlib.sha256(json.dumps([commands(results), rebuild_command(results)]).encode()).hexdigest()


def hash_place(results: Results) -> str:
    """Hash the folders of the studies, however they are spelled."""
    return hashlib.sha256(json.dumps([str(real_path(each.folder)) for each in results.strata]).encode()).hexdigest()


def read_written(folder: Path) -> Written | None:
    """Return the report in a folder; None if there is none, or one of its files is missing or another.

    Args:
        folder: folder of the report.
    """
    try:
        made = _Made.model_validate(read_json(folder / NAME))
    except (OSError, ValueError):
        return None
    if any(_digest_of(folder / name) != digest for name, digest in made.files.items()):
        return None
    return Written(
        made_from=made.made_from,
        commands=made.commands,
        place=made.place,
        ref=made.ref,
        is_full=made.full,
        num_left_out=made.num_left_out,
        files=[folder / name for name in made.files],
    )


def note_written(
    folder: Path, results: Results, *, made_from: str, is_full: bool, num_left_out: int, files: Iterable[Path]
) -> None:
    """Write down what a report shows, once all its files are written."""
    made = _Made(
        format=1,
        made_from=made_from,
        commands=hash_commands(results),
        place=hash_place(results),
        ref=results.reference,
        full=is_full,
        num_left_out=num_left_out,
        files={path.relative_to(folder).as_posix(): _digest_of(path) or "" for path in files},
    )
    write_json(folder / NAME, made.model_dump())


def _digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is missing or no regular file."""
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except OSError:
        return None


def _hashable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column whose arrays and lists are written as text or bytes."""
    if column.dtype != object:
        return column
    return column.map(lambda value: value.tobytes() if isinstance(value, np.ndarray) else repr(value))
