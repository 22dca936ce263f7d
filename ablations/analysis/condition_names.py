"""Names of conditions without one of their fields."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablations.config.values import value_name


def names_without(field: str, names: pd.Series[str], cells: pd.DataFrame) -> pd.Series[str]:
    """Return names of conditions or settings without one field.

    Args:
        field: the field.
        names: one name per cell.
        cells: one row per cell, with the values of the fields as columns. A text of another field may look like the
            field: its column protects it.

    Returns:
        One name per cell, with the index of `cells`; the name itself if it lacks the field.

    >>> cells = pd.DataFrame({"condition": ["depth=4, lr=0.1", "depth=8, lr=0.1"], "depth": [4, 8]})
    >>> names_without("depth", cells["condition"], cells).tolist()
    ['lr=0.1', 'lr=0.1']
    """
    if field not in cells or not len(cells):
        return names.astype(str)
    places = pd.DataFrame({"name": names.astype(str), "value": cells[field]})
    codes = places.groupby(["name", "value"], sort=False, dropna=False).ngroup()
    firsts = (~codes.duplicated()).to_numpy()
    texts = cells[firsts].select_dtypes(exclude=["number", "bool"]).to_dict("records")
    found = zip(places[firsts].itertuples(index=False), texts, strict=True)
    short = [
        _without(field, value, name, {str(key): text for key, text in own.items()}) for (name, value), own in found
    ]
    return pd.Series(np.array(short, dtype=object)[codes], index=cells.index, dtype=str)


def _without(field: str, value: float, name: str, texts: Mapping[str, object]) -> str:
    """Return a name without a field: its last occurrence outside the values of other fields.

    The name of a study, which comes first, may look like the field too.

    >>> _without("lr", 0.1, "data=a, lr=0.1, lr=0.1, depth=4", {"data": "a, lr=0.1"})
    'data=a, lr=0.1, depth=4'
    """
    masked = name
    for other, text in texts.items():
        if isinstance(text, str) and f"{field}=" in text:
            masked = masked.replace(f"{other}={text}", "\0" * len(f"{other}={text}"))
    written = [value_name(value), f"{value:.0f}"]  # integers become floats where another study lacks them
    pattern = "|".join(re.escape(f"{field}={text}") for text in written)
    matches = list(re.finditer(rf"(?:^|(?<=, ))(?:{pattern})(?=, |$)", masked))
    if not matches:
        return name
    before, after = name[: matches[-1].start()].removesuffix(", "), name[matches[-1].end() :].removeprefix(", ")
    return ", ".join(filter(None, [before, after]))
