"""Extension of a study by grids: its cells afterwards are those that it had and those of the request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ablations.config.cell import FIELDS
from ablations.config.errors import UsageError
from ablations.config.grid import Grid, check_grids, united_axes, unless_product
from ablations.config.study import DATA_FIELDS, Study, point_name
from ablations.config.values import value_name


def grow_grids(stored: Study, asked: Study, *, named: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Unite the grids of a stored study with those of a request.

    If the request has all cells of the stored study, it may vary fields that the study held fixed. Otherwise it may
    only have other values and combinations of the study's axes.

    Args:
        named: fields that the request names; defaults do not extend an axis.

    Returns:
        Fields of the grown study that determine its cells, and the additions in words.

    Raises:
        UsageError: another value of a field that the study holds fixed, or too many cells.
    """
    cells: dict[str, Any]
    if _has_all(stored, asked):
        return {"axes": stored.axes}, []
    if _has_all(asked, stored):
        axes = {field: _in_order(stored.axes.get(field, []), values) for field, values in asked.axes.items()}
        per_arm = merge_per_arm(stored, asked, named)
        fixed, *each = [_without(held, stored.fields_per_arm) for held in (asked.fixed, *asked.per_data.values())]
        per_data = dict(zip(asked.per_data, each, strict=True))
        parts, cells = list(asked.parts), {"fixed": fixed, "per_data": per_data, "per_arm": per_arm}
    else:
        _check_new(stored, asked, named)
        parts = list(stored.parts)
        for grid in asked.parts:
            _add(parts, _over(grid, stored, asked))
        axes = united_axes(parts)
        per_data = merge_per_data(stored, asked, named)
        cells = {"per_data": per_data, "per_arm": merge_per_arm(stored, asked, named) if stored.per_arm else {}}
    axes["seed"] = sorted(axes["seed"])
    check_grids(parts)
    cells |= {"axes": axes, "grids": unless_product(parts)}
    known = {**{field: [value] for field, value in stored.fixed.items()}, **stored.axes}
    added = [f"{field}={value_name(v)}" for field, values in axes.items() for v in values if v not in known[field]]
    return cells, added or ["other combinations of its values"]


def _has_all(study: Study, other: Study) -> bool:
    """Tell whether a study has every cell of another."""
    for grid in other.parts:
        for row in grid.rows():
            for seed in grid.axes["seed"]:
                asked = {**row, "seed": seed}
                asked = {**other.held(asked), **asked}
                if not (study.axes.keys() <= asked.keys() and study.holds(asked)):
                    return False
    return True


def _without(held: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    return {field: value for field, value in held.items() if field not in fields}


def _in_order(first: list[Any], values: list[Any]) -> list[Any]:
    """Return values in the order of an earlier list, new ones last."""
    return [value for value in first if value in values] + [value for value in values if value not in first]


def _check_new(stored: Study, asked: Study, named: Collection[str]) -> None:
    """Reject defaults that would extend an axis."""
    for field, have in stored.axes.items():
        for value in _values(asked, field):
            if value not in have and field not in named:
                raise default_is_new(stored, field, value)


def _values(study: Study, field: str) -> list[Any]:
    """Return all values that a study has of a field."""
    points = study.data_points.values()
    return study.axes.get(field) or list(dict.fromkeys(point[field] for point in points))


def _over(grid: Grid, stored: Study, asked: Study) -> Grid:
    """Return a requested grid over the axes of the stored study."""
    axes = {field: grid.axes.get(field) or _values(asked, field) for field in stored.axes}
    lost = grid.axes.keys() - axes.keys()  # each has one value, which the study holds fixed
    exclude = tuple({f: v for f, v in entry.items() if f not in lost} for entry in grid.exclude)
    groups = (tuple(f for f in group if f not in lost) for group in grid.zipped)
    zipped = tuple(group for group in groups if len(group) > 1)
    return Grid.model_construct(axes=axes, zipped=zipped, exclude=exclude)


def _add(parts: list[Grid], grid: Grid) -> None:
    """Add a grid to others: into one of them, if their union is a grid."""
    for number, have in enumerate(parts):
        if (have.zipped, have.exclude) != (grid.zipped, grid.exclude):
            continue
        differ = [field for field in have.axes if have.axes[field] != grid.axes[field]]
        if len(differ) > 1 or (differ and have.partners(differ[0])):
            continue
        more = {field: list(dict.fromkeys((*have.axes[field], *grid.axes[field]))) for field in differ}
        parts[number] = Grid.model_construct(axes={**have.axes, **more}, zipped=have.zipped, exclude=have.exclude)
        return
    parts.append(grid)


def merge_per_arm(stored: Study, asked: Study, named: Collection[str]) -> dict[str, dict[str, Any]]:
    """Add the arms of a request to the values that depend on the arm; those of an arm stay as they are.

    If the request has one value for all its arms, each of them has that one.

    Raises:
        UsageError: other fields, another value of an arm that the study has, or a default for a new arm.
    """
    added = asked.per_arm
    if stored.per_arm and not added:
        if varied := [field for field in stored.fields_per_arm if field not in asked.fixed]:
            raise UsageError(f"study '{stored.name}' has values of {varied[0]} per arm: give one value of it")
        added = {arm: {f: asked.fixed[f] for f in stored.fields_per_arm} for arm in asked.arm_names}
    for arm, own in added.items():
        for field, value in own.items():
            if stored.per_arm and arm not in stored.per_arm and field not in named:
                raise UsageError(f"study '{stored.name}' has values of {field} per arm: give that of {arm} too")
            have = stored.per_arm.get(arm, own).get(field, value)
            if have != value:
                raise another_question(stored, field, have, [value], where=arm)
    if asked.per_arm and stored.per_arm and asked.fields_per_arm != stored.fields_per_arm:
        have, want = (", ".join(study.fields_per_arm) for study in (stored, asked))
        raise another_question(stored, "per_arm", have, [want])
    return {**stored.per_arm, **added}


def default_is_new(stored: Study, field: str, value: Any) -> UsageError:
    """Return the error of a default that would extend an axis."""
    have = stored.axes[field]
    return UsageError(
        f"study '{stored.name}' has {field}={','.join(map(value_name, have))}, and the default "
        f"{value_name(value)} is not among them: give --set {field}={value_name(have[0])}, or other values"
    )


def merge_per_data(stored: Study, asked: Study, named: Collection[str]) -> dict[str, dict[str, Any]]:
    """Merge the defaults of data sets of a stored study with those of a request, which may not change existing ones."""
    merged = dict(stored.per_data)
    for point in asked.data_points.values():
        name = point_name(point, [field for field in DATA_FIELDS if field in stored.axes])
        own = _check_point(stored, asked, point, name, named)
        if name:
            merged.setdefault(name, own)
    return merged


def _check_point(
    stored: Study, asked: Study, point: Mapping[str, Any], name: str, named: Collection[str]
) -> dict[str, Any]:
    """Check a data set of a request against the stored study, and return the fields that a new one decides."""
    decided = {field for own in stored.per_data.values() for field in own}
    own = stored.per_data.get(name)
    known = {**stored.fixed, **(own or {})}
    for field in FIELDS:
        if field in stored.axes or field in stored.searched or field in stored.fields_per_arm:
            continue
        if own is None and field in decided and field not in named:
            continue
        default = "the data set's own" if field in decided else FIELDS[field].info.get_default()
        have = known.get(field, default)
        of_arms = [own[field] for own in asked.per_arm.values() if field in own]
        want = asked.axes.get(field, list(dict.fromkeys(of_arms)) or [point.get(field)])
        if want != [have]:
            raise another_question(stored, field, have, want, where=name)
    return {field: point[field] for field in sorted(decided)} if own is None else {}


def another_question(stored: Study, field: str, have: Any, want: list[Any], *, where: str = "") -> UsageError:
    """Return the error of a request that changes what a study holds fixed."""
    place = f" for {where}" if where else ""
    return UsageError(
        f"study '{stored.name}' asks another question: its {field} is {value_name(have)}{place}, not "
        f"{','.join(map(value_name, want))}; choose another name with --study"
    )
