"""CSV files that a spreadsheet opens as text and numbers, and runs nothing of."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ablations.config.privacy import hider
from ablations.store.files import replacing

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Beginning of a cell that a spreadsheet takes for a formula (OWASP, "CSV injection"), or that has been guarded;
the last four are the signs in full width."""

_HARMLESS = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?( points[\w .,;:-]*)?")
"""A number, or a difference in words that a formula does not have."""


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame atomically, with an apostrophe before texts that a spreadsheet would run, and without private ones.

    Args:
        frame: frame; its numbers, and texts that are numbers, are written unchanged.
        path: path of the file.
    """
    hide = hider()
    guarded = _changed(frame, lambda text: guard(hide(text)))
    returns = any("\r" in text for name in guarded for text in _texts(guarded[name]))
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL  # it leaves carriage returns bare
    with replacing(path) as scratch:
        guarded.to_csv(scratch, index=False, quoting=quoting)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that `write_csv` has written with its own texts."""
    return _changed(frame, lambda text: text[1:] if text[:1] == "'" and guard(text[1:]) == text else text)


def guard(text: str) -> str:
    """Guard a text that a spreadsheet would take for a formula.

    >>> guard("=1+1"), guard("-0.5"), guard("-x"), guard("l2")
    ("'=1+1", '-0.5', "'-x", 'l2')
    """
    return f"'{text}" if _FORMULA.match(text) and not _HARMLESS.fullmatch(text) else text


def _changed(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Change the texts of a frame, each distinct text of a column once."""
    found = {}
    for name in frame.columns:
        known = {text: change(text) for text in _texts(frame[name])}
        if any(text != changed for text, changed in known.items()):
            found[name] = frame[name].map(partial(_looked_up, known))
    return frame.assign(**found)


def _texts(column: pd.Series[Any]) -> set[str]:
    """Return the distinct texts of a column."""
    if column.dtype.kind in "iufbM":
        return set()
    try:
        return {value for value in column.unique() if isinstance(value, str)}
    except TypeError:  # of lists and other values without a hash
        return {value for value in column if isinstance(value, str)}


def _looked_up(known: dict[str, str], value: object) -> object:
    return known[value] if isinstance(value, str) else value
