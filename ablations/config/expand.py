"""From lists of values to a study and its cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ablations.config.cell import FIELDS, CellConfig
from ablations.config.claim import Claim
from ablations.config.errors import UsageError, first_error
from ablations.config.grid import Grid, GridRequest, check_grids, united_axes, unless_product
from ablations.config.make import make_config
from ablations.config.make_grids import make_grids
from ablations.config.search import Point, Search, Tuned
from ablations.config.study import DATA_FIELDS, Study, choose_ref, point_name
from ablations.config.values import value_name

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Function from the given fields of a cell to the default values of the others."""

PerArm = Mapping[str, Mapping[str, Any]]
"""Values of fields by the name of the arm."""

NOTHING: PerArm = MappingProxyType({})


def expand(
    grids: Sequence[Grid],
    fixed: Mapping[str, Any],
    defaults: Defaults,
    *,
    compare: str = "norm",
    points: Collection[Point] | None = None,
    per_arm: PerArm = NOTHING,
) -> list[CellConfig]:
    """Expand grids seed by seed, so that an interrupted study has equal numbers per arm.

    A cell of several grids comes once. Cells whose point is not drawn yet are left out.

    Args:
        grids: grids over the same axes.
        fixed: values of other given fields.
        defaults: function that gives the values of the remaining fields.
        compare: field whose values are the arms.
        points: values of the searched fields; None: nothing is searched.
        per_arm: values of fields that depend on the arm, by its name.

    Raises:
        UsageError: values that contradict each other, or too many cells.
    """
    check_grids(grids)
    tuned, cells = None if points is None else Tuned(points), dict[tuple[Any, ...], CellConfig]()
    rows = [list(grid.rows()) for grid in grids]
    for seed in dict.fromkeys(seed for grid in grids for seed in grid.axes["seed"]):
        own = [row for grid, all_rows in zip(grids, rows, strict=True) if seed in grid.axes["seed"] for row in all_rows]
        for row in own:
            asked = {**fixed, **row, "seed": seed}
            arm = value_name(asked[compare])
            if tuned is not None:
                if (values := tuned.values(arm, seed)) is None:
                    continue
                asked |= values
            asked |= per_arm.get(arm, {})
            key = (seed, *(row[field] for field in grids[0].axes if field != "seed"))
            if key not in cells:
                cells[key] = make_config({**defaults(asked), **asked})
    return list(cells.values())


def design(
    *,
    name: str,
    asked: Mapping[str, list[Any]],
    compare: str,
    ref: str | None,
    recipe: str,
    defaults: Defaults,
    grids: Sequence[GridRequest] = (),
    per_arm: PerArm = NOTHING,
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
        grids: grids whose union the study is; none: the product of ``asked``.
        per_arm: values of fields that depend on the arm, by its name; arms without them have those of ``asked``.
        search: search, as in `Study`; only the points give values of its fields.
        points: points, as in `Study`; TPE adds them as results come in.

    Raises:
        UsageError: a reference that is not an arm, contradictory values, or arms that differ in several defaults.
    """
    each = partial(expand, defaults=defaults, compare=compare, points=points if search else None, per_arm=per_arm)
    parts, single = make_grids(asked, grids, compare=compare, expand=each)
    axes, cells = united_axes(parts), each(parts, single)
    complete = _complete_per_arm(per_arm, axes, cells, compare=compare)
    varied = [*([] if search is None else search.fields), *next(iter(complete.values()), {})]
    per_data = _decided_by_data(parts, single, defaults, varied=varied)
    decided = {*axes, *varied, *(field for own in per_data.values() for field in own)}
    fixed = {field: value for field, value in cells[0].model_dump().items() if field not in decided}
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
            grids=unless_product(parts),
            per_arm=complete,
            fixed=fixed,
            per_data=per_data,
            search=search,
            points=points,
            plugins=plugins,
            claims=claims,
        )
    except ValidationError as error:
        raise UsageError(first_error(error)) from None
    _check_held(study, cells)
    return study, cells


def _complete_per_arm(
    per_arm: PerArm, axes: Mapping[str, list[Any]], cells: Sequence[CellConfig], *, compare: str
) -> dict[str, dict[str, Any]]:
    """Return the values of the fields that depend on the arm, of every arm; of one without its own, those it has."""
    arms = [value_name(value) for value in axes[compare]]
    if unknown := [arm for arm in per_arm if arm not in arms]:
        raise UsageError(f"per_arm: {unknown[0]} is not one of the arms: {', '.join(arms)}")
    fields = [field for field in FIELDS if any(field in own for own in per_arm.values())]
    if taken := [field for field in fields if field in axes]:
        raise UsageError(f"per_arm: {taken[0]} is an axis too; leave one out")
    found: dict[str, dict[str, Any]] = {arm: {} for arm in arms} if fields else {}
    for cell in cells if fields else ():
        own = found[value_name(cell[compare])]
        for field in fields:
            if own.setdefault(field, cell[field]) != cell[field]:
                raise UsageError(f"per_arm: give {field} of {value_name(cell[compare])} too, since its default varies")
    return found


def _check_held(study: Study, cells: Sequence[CellConfig]) -> None:
    """Reject a default that depends on an axis or on an arm's values, so that cells would differ in it too."""
    for cell in cells:
        if cell.seed == cells[0].seed and not study.has(cell):
            held = study.held(values := cell.model_dump())
            field = next(field for field, value in held.items() if values[field] != value)
            one, other = value_name(held[field]), value_name(values[field])
            raise UsageError(f"by default {field} is {one} in some cells and {other} in others; give it with --set")


def _decided_by_data(
    grids: Sequence[Grid], single: Mapping[str, Any], defaults: Defaults, *, varied: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the defaults of each combination of `DATA_FIELDS`; empty if none of these is an axis."""
    axes = grids[0].axes
    data_axes = [field for field in DATA_FIELDS if field in axes]
    given, per_data = {*single, *axes, *varied}, dict[str, dict[str, Any]]()
    for row in (row for grid in grids for row in grid.rows()) if data_axes else ():
        name = point_name(row, data_axes)
        if name not in per_data:
            point = {**single, **{field: row[field] for field in data_axes}}
            per_data[name] = {f: v for f, v in defaults(point).items() if f not in given}
    return per_data


def _check_one_difference(compare: str, per_data: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = per_data.values()
    differ = [f for f, v in first.items() if f != "data_fingerprint" and any(own[f] != v for own in others)]
    if differ:
        raise UsageError(
            f"--compare {compare}: by default its values differ in {', '.join(differ)} too; give each with --set"
        )
