"""How the study's cells are computed: as those that it has, or in the way that the grid found fastest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ablations.config.values import value_name
from ablations.store import Store

WAYS: Mapping[str, tuple[str, ...]] = {
    "eager": (),
    "graph": ("cuda_graph=on",),
    "stacked": ("stack=8",),
    "stacked_graph": ("stack=8", "cuda_graph=on"),
}
"""Fields of the ways that every GPU can take; compiling would take the study's time."""


def choose_fields(study: Path, grid: Path) -> tuple[str, ...]:
    """Return fields of the study's cells, as ``FIELD=VALUE``.

    Args:
        study: folder of the study, which may not exist yet.
        grid: rows of the grid benchmark, which may not exist.
    """
    if (study / "study.yaml").is_file():
        fixed = Store(study).read_study().fixed
        return tuple(f"{name}={value_name(fixed[name])}" for name in ("stack", "cuda_graph") if name in fixed)
    return WAYS[fastest(pd.read_csv(grid))] if grid.is_file() else ()


def fastest(rows: pd.DataFrame) -> str:
    """Return the way with the most cells an hour; ``eager`` if none was measured.

    >>> rows = {"way": ["eager", "graph", "compiled"], "quantity": "cells_per_hour", "value": [60.0, 90.0, 99.0]}
    >>> fastest(pd.DataFrame(rows))
    'graph'
    """
    own = rows[(rows["quantity"] == "cells_per_hour") & rows["way"].isin(list(WAYS))]
    return str(own.sort_values("value")["way"].iloc[-1]) if len(own) else "eager"
