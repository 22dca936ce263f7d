"""From requested grids to grids over the same axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ablations.config.cell import CellConfig
from ablations.config.errors import UsageError, first_error
from ablations.config.grid import (
    Exclusion,
    Grid,
    GridRequest,
    check_zipped,
    exclusion_text,
    is_excluded,
    num_combinations,
)
from ablations.config.limits import MOST_EXCLUSIONS, MOST_GRIDS, check_num_cells
from ablations.config.values import value_name

ALWAYS_AXES = ("norm", "seed")

Expand = Callable[[Sequence[Grid], Mapping[str, Any]], list[CellConfig]]
"""Function from grids and the values of other fields to cells."""


def make_grids(
    asked: Mapping[str, list[Any]], requests: Sequence[GridRequest], *, compare: str, expand: Expand
) -> tuple[list[Grid], dict[str, Any]]:
    """Make grids that have the same axes: every field that varies within one or between two.

    Args:
        asked: values of each field, for the grids that do not give it.
        requests: requested grids; none: one grid of ``asked``.
        compare: field whose values are the arms.
        expand: function that gives the default of a field that a grid lacks.

    Returns:
        The grids, and the values of the fields that do not vary.

    Raises:
        UsageError: fields that cannot be zipped, combinations that no cell has, a compared field without values, or
            too many cells.
    """
    requests = requests or [GridRequest()]
    given = [{**asked, **request.asked} for request in requests]
    check_requests(asked, requests)
    fields = _axes_of(given, requests, compare)
    single = {field: values[0] for own in given for field, values in own.items() if field not in fields}
    exclusions, wholes = _Exclusions(single), []
    for number, (own, request) in enumerate(zip(given, requests, strict=True), start=1):
        axes = {field: own[field] for field in fields if field in own}
        if lacking := [field for field in fields if field not in own]:
            cells = expand([Grid.model_construct(axes=axes, zipped=request.zipped)], single)
            for field in lacking:
                if len(values := list(dict.fromkeys(cell[field] for cell in cells))) > 1:
                    raise UsageError(f"grid {number}: give {field}, since its default varies within the grid")
                axes[field] = values
        wholes.append({field: axes[field] for field in fields})
    for field in _equal(wholes, requests, compare):  # a grid has named the default of another
        (single[field], *_), *_ = [axes.pop(field) for axes in wholes]
    grids = []
    for number, (axes, request) in enumerate(zip(wholes, requests, strict=True), start=1):
        whole = Grid.model_construct(axes=axes, zipped=request.zipped)
        grids.append(_grid(whole, exclusions.of(whole, request.exclude), number if len(requests) > 1 else 0))
    exclusions.check_used()
    return grids, single


def _equal(wholes: Sequence[Mapping[str, list[Any]]], requests: Sequence[GridRequest], compare: str) -> list[str]:
    """Return the axes that have the same single value in all grids, without those that are always axes."""
    kept = {compare, *ALWAYS_AXES, *(field for request in requests for group in request.zipped for field in group)}
    return [f for f in wholes[0] if f not in kept and len({value for axes in wholes for value in axes[f]}) == 1]


def _grid(whole: Grid, exclude: Sequence[Exclusion], number: int) -> Grid:
    """Make a grid from one without exclusions; the number of a single one is 0."""
    try:
        grid = Grid(axes=whole.axes, zipped=whole.zipped, exclude=tuple(map(dict, exclude)))
    except ValidationError as error:
        raise UsageError(first_error(error)) from None
    if exclude and next(grid.rows(), None) is None:
        which = f" of grid {number}; leave out the grid instead" if number else ""
        raise UsageError(f"exclude: it leaves out every cell{which}")
    return grid


class _Exclusions:
    """Combinations left out of grids, and which of their values some cell would have.

    Args:
        single: values of the fields that do not vary.
    """

    def __init__(self, single: Mapping[str, Any]) -> None:
        self._single = single
        self._met: dict[str, tuple[Exclusion, set[tuple[str, Any]]]] = {}

    def of(self, grid: Grid, entries: Sequence[Exclusion]) -> list[Exclusion]:
        """Return those that a grid has, by its axes: a field that does not vary is in all combinations or in none."""
        found, rows = list[Exclusion](), list(grid.rows()) if entries else []
        for entry in entries:
            if "seed" in entry:
                raise UsageError("exclude: seeds are replicates, and every combination has all of them; leave seed out")
            if unknown := [field for field in entry if field not in grid.axes and field not in self._single]:
                raise UsageError(f"exclude {exclusion_text(entry)}: {unknown[0]} does not vary; give several values")
            met = self._met.setdefault(exclusion_text(entry), (entry, set()))[1]
            own = [row for row in ({**self._single, **row} for row in rows) if is_excluded(row, entry)]
            met.update((field, row[field]) for row in own for field in entry)
            if own:
                found.append({field: values for field, values in entry.items() if field in grid.axes})
        if not all(found):
            raise UsageError("exclude: it leaves out every cell")
        return found

    def check_used(self) -> None:
        """Reject a combination, or a part of one, that leaves nothing out."""
        for text, (entry, met) in self._met.items():
            if idle := [(field, v) for field, values in entry.items() for v in values if (field, v) not in met]:
                field, value = idle[0]
                others = " with the others" if len(entry) > 1 else ""
                raise UsageError(f"exclude {text}: no cell has {field}={value_name(value)}{others}; leave it out")


def check_requests(asked: Mapping[str, list[Any]], requests: Sequence[GridRequest]) -> None:
    """Check the sizes of requested grids, and that zipped fields pair up, before any is expanded.

    Args:
        asked: values of each field, for the grids that do not give it.
        requests: requested grids.

    Raises:
        UsageError: too many grids, combinations or cells, or fields that cannot be zipped.
    """
    if len(requests) > MOST_GRIDS:
        raise UsageError(f"{len(requests):,} grids are above the limit of {MOST_GRIDS:,}; give fewer")
    total = 0
    for request in requests:
        own = {**asked, **request.asked}
        if len(request.exclude) > MOST_EXCLUSIONS:
            raise UsageError(f"exclude: {len(request.exclude):,} entries are above the limit of {MOST_EXCLUSIONS:,}")
        try:
            check_zipped(own, request.zipped)
        except ValueError as error:
            raise UsageError(str(error)) from None
        total += num_combinations(own, request.zipped)
    if len(requests) == 1 and not requests[0].zipped:
        check_num_cells({field: len(values) for field, values in {**asked, **requests[0].asked}.items()})
    else:
        check_num_cells({"all grids": total})


def _axes_of(given: Sequence[Mapping[str, list[Any]]], requests: Sequence[GridRequest], compare: str) -> list[str]:
    """Return the fields that vary, the compared one first and the seed last."""
    zipped = {field for request in requests for group in request.zipped for field in group}
    names = dict.fromkeys(field for own in given for field in own)

    def is_axis(field: str) -> bool:
        values = [own.get(field) for own in given]
        varies = any(each != values[0] for each in values) or len(values[0] or ()) > 1
        return varies or field in zipped or field in (*ALWAYS_AXES, compare)

    axes = [field for field in names if is_axis(field)]
    if compare not in axes:
        raise UsageError(f"--compare {compare}: give the values to compare, for instance --set {compare}=a,b")
    return sorted(axes, key=lambda field: (field != compare, field == "seed"))
