"""The request for a stored study, unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.config import Study, UsageError
from ablations.config.cell import FIELDS
from ablations.config.effects import without_foreign
from ablations.config.grid import GridRequest
from ablations.config.options import InMemory
from ablations.config.paths import real_path
from ablations.config.request import Request


def request_of(study: Study, *, folder: Path, data: list[str] | None, data_root: Path) -> Request:
    """Ask for a stored study again, unchanged.

    Args:
        study: the stored study.
        folder: the study's folder.
        data: its data sets as on the command line, needed if one is a folder of images.
        data_root: folder of torchvision's data.

    Raises:
        UsageError: a data set is a folder of images, whose path a study does not store, and ``data`` is None.
    """
    single = {field: [value] for field, value in study.fixed.items() if not FIELDS[field].traits.is_derived}
    asked = without_foreign({**single, **study.axes})
    if data is not None:
        asked["data"] = data
    elif placeless := [name for name in asked["data"] if ":" in name]:
        kind = placeless[0].partition(":")[0]
        raise UsageError(f"a study does not store the path of {placeless[0]}: give it as --data {kind}:DIR")
    grids = _grids_of_study(study, asked)
    own = folder if folder.name not in ("", "..") else real_path(folder)
    own = own.parent if study.is_tuning else own
    return Request(
        asked=asked,
        grids=grids,
        per_arm=study.per_arm,
        compare=study.compare,
        ref=study.ref,
        recipe=study.recipe or "quick",
        search=study.search,
        points=study.points,
        trials=study.is_tuning,
        name=real_path(own).name,
        out=own.parent,
        data_root=data_root,
        in_memory=_in_memory_of(study),
        plugins=study.plugins,
        smoke=bool(study.fixed.get("smoke")),
    )


def _grids_of_study(study: Study, asked: Mapping[str, list[Any]]) -> tuple[GridRequest, ...]:
    """Return the grids of a stored study, with its data sets as they are asked for."""
    names, given = study.axes.get("data", []), asked["data"]
    if study.grids and len(names) > 1 and len(given) != len(names):
        raise UsageError(
            f"study '{study.name}' has grids over {', '.join(names)}: give each with --data, in this order"
        )
    located = dict(zip(names, given, strict=False))
    return tuple(
        GridRequest(
            asked={
                name: [located.get(value, value) for value in values] if name == "data" else values
                for name, values in grid.axes.items()
                if name in asked
            },
            zipped=grid.zipped,
            exclude=grid.exclude,
        )
        for grid in study.grids
    )


def _in_memory_of(study: Study) -> InMemory:
    """Return the option of a stored study: ``auto`` if its data sets differ in it, since then only size decides it."""
    streamed = {bool(point.get("streamed")) for point in study.data_points.values()}
    if len(streamed) > 1:
        return "auto"
    if streamed == {True}:
        return "off"
    folders = any(":" in name for name in (point["data"] for point in study.data_points.values()))
    return "on" if folders else "auto"
