"""From lists of values to a study and its cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ValidationError

from ablations.config.cell import CellConfig
from ablations.config.claim import Claim
from ablations.config.errors import UsageError, first_error
from ablations.config.limits import check_num_cells
from ablations.config.make import make_config
from ablations.config.search import Point, Search, Tuned
from ablations.config.study import ALWAYS_AXES, DATA_FIELDS, Study, choose_ref, point_name
from ablations.config.values import value_name

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Function from the given fields of a cell to the default values of the others."""


def expand(
    axes: Mapping[str, list[Any]],
    fixed: Mapping[str, Any],
    defaults: Defaults,
    *,
    compare: str = "norm",
    points: Collection[Point] | None = None,
) -> list[CellConfig]:
    """Expand the product of the axes seed by seed, so that an interrupted grid has equal numbers per arm.

    Cells whose point is not drawn yet are left out.

    Args:
        axes: values of every field that varies.
        fixed: values of other given fields.
        defaults: function that gives the values of the remaining fields.
        compare: field whose values are the arms.
        points: values of the searched fields; None: nothing is searched.

    Raises:
        UsageError: values that contradict each other.
    """
    check_num_cells({field: len(values) for field, values in axes.items()})
    others = {field: values for field, values in axes.items() if field != "seed"}
    tuned, cells = None if points is None else Tuned(points), []
    for seed in axes["seed"]:
        for point in itertools.product(*others.values()):
            asked = {**fixed, **dict(zip(others, point, strict=True)), "seed": seed}
            if tuned is not None:
                if (values := tuned.values(value_name(asked[compare]), seed)) is None:
                    continue
                asked |= values
            cells.append(make_config({**defaults(asked), **asked}))
    return cells


def design(
    *,
    name: str,
    asked: Mapping[str, list[Any]],
    compare: str,
    ref: str | None,
    recipe: str,
    defaults: Defaults,
    question: str = "",
    search: Search | None = None,
    points: tuple[Point, ...] = (),
    plugins: tuple[str, ...] = (),
    claims: tuple[Claim, ...] = (),
) -> tuple[Study, list[CellConfig]]:
    """Make a study and its cells from lists of values.

    Args:
        asked: values of each named field; several values make an axis.
        recipe: recipe of ``defaults``.
        search: search, as in `Study`; only the points give values of its fields.
        points: points, as in `Study`; TPE adds them as results come in.

    Raises:
        UsageError: a reference that is not an arm, contradictory values, or arms that differ in several defaults.
    """
    fields = sorted(asked, key=lambda field: (field != compare, field == "seed"))
    axes = {f: list(asked[f]) for f in fields if len(asked[f]) > 1 or f in (*ALWAYS_AXES, compare)}
    if compare not in axes:
        raise UsageError(f"--compare {compare}: give the values to compare, for instance --set {compare}=a,b")
    single = {field: asked[field][0] for field in asked if field not in axes}
    cells = expand(axes, single, defaults, compare=compare, points=points if search else None)
    searched = [] if search is None else search.fields
    per_data = _decided_by_data(axes, single, defaults, searched=searched)
    decided = {field for own in per_data.values() for field in own} | {*searched}
    first = cells[0].model_dump()
    fixed = {field: value for field, value in first.items() if field not in axes and field not in decided}
    if compare in DATA_FIELDS:
        _check_one_difference(compare, per_data)
    try:
        study = Study(
            name=name,
            question=question,
            compare=compare,
            ref=choose_ref(ref, axes[compare]),
            recipe=recipe,
            axes=axes,
            fixed=fixed,
            per_data=per_data,
            search=search,
            points=points,
            plugins=plugins,
            claims=claims,
        )
    except ValidationError as error:
        raise UsageError(first_error(error)) from None
    return study, cells


def _decided_by_data(
    axes: Mapping[str, list[Any]], single: Mapping[str, Any], defaults: Defaults, *, searched: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the defaults of each combination of `DATA_FIELDS`; empty if none of these is an axis."""
    data_axes = {field: axes[field] for field in DATA_FIELDS if field in axes}
    per_data = {}
    for values in itertools.product(*data_axes.values()) if data_axes else ():
        point = {**single, **dict(zip(data_axes, values, strict=True))}
        given = {*single, *axes, *searched}
        per_data[point_name(point, data_axes)] = {f: v for f, v in defaults(point).items() if f not in given}
    return per_data


def _check_one_difference(compare: str, per_data: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = per_data.values()
    differ = [f for f, v in first.items() if f != "data_fingerprint" and any(own[f] != v for own in others)]
    if differ:
        raise UsageError(
            f"--compare {compare}: by default its values differ in {', '.join(differ)} too; give each with --set"
        )
