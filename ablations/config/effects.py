"""Reject fields, searches and changes that have no effect on any cell of a study."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ablations.config.cell import FIELDS, CellConfig, CellField
from ablations.config.errors import UsageError
from ablations.config.nets import is_foreign
from ablations.config.search import Tuned
from ablations.config.study import DATA_FIELDS, Study, point_name, typed_values
from ablations.config.types import Task
from ablations.config.values import value_name


def check_task(
    task: Task, asked: Mapping[str, list[Any]], *, recipe: Mapping[str, Any], searched: Sequence[str] = ()
) -> None:
    """Reject what does not apply to a study's task.

    Args:
        task: task of the study.
        asked: values of each field that was named.
        recipe: values that the recipe gives; naming them again is allowed.
        searched: fields of a tuning.

    Raises:
        UsageError: a field, a search, a change or a value that does not apply to the task.
    """
    for name, values in sorted(asked.items()):
        if not FIELDS[name].applies_to(task) and not _is_plain(FIELDS[name], values, recipe):
            raise UsageError(f"{_written(name, values)} does not apply to --task {task}: leave it out")
        choices = (FIELDS[name].traits.choices or {}).get(task)
        if choices is not None and (other := [value for value in values if value not in choices]):
            raise UsageError(f"{name}={other[0]} does not apply to --task {task}: give {' or '.join(choices)}")
    for name in searched:
        if not FIELDS[name].applies_to(task):
            raise UsageError(f"--search {name}: it does not apply to --task {task}")
    for change in asked.get("change", []):
        name = change.partition("=")[0]
        if name in FIELDS and not FIELDS[name].applies_to(task):
            raise UsageError(f"change={change} does not apply to --task {task}: leave it out")


def check_nets(asked: Mapping[str, list[Any]]) -> None:
    """Reject fields of UFO-ViT that have no effect on the other libraries' nets among the models.

    A field that every UFO-ViT needs, such as the normaliser, may have one value if UFO-ViT is among the models too.

    Args:
        asked: values of each field that was named.

    Raises:
        UsageError: such a field, and the fix.
    """
    models = asked.get("model", [])
    foreign = [model for model in models if is_foreign(model)]
    if not foreign:
        return
    has_ufo = len(foreign) < len(models)
    for name, values in sorted(asked.items()):
        field = FIELDS[name]
        if not field.traits.ufo_only or _is_plain(field, values, {}):
            continue
        if len(values) == 1 and field.is_required and (has_ufo or values == ["xnorm"]):
            continue
        raise UsageError(
            f"{_written(name, values)} does not apply to {foreign[0]}: leave it out (with --compare model the models "
            f"are the arms), or give it in a study without nets of timm"
        )


def check_effects(asked: Collection[str], cells: Collection[CellConfig], *, recipe: Mapping[str, Any]) -> None:
    """Reject fields that affect no cell of the study.

    Args:
        asked: fields that were named.
        cells: cells of the study.
        recipe: values that the recipe gives; naming them again is allowed.

    Raises:
        UsageError: such a field, its value, and what would give it an effect.
    """
    for field in FIELDS.values():
        effect = field.traits.effect
        if effect is None or field.name not in asked or any(map(effect.holds, cells)):
            continue
        values = sorted({cell[field.name] for cell in cells})
        if not _is_plain(field, values, recipe):
            written = _written(field.name, values)
            raise UsageError(f"{written} has no effect without {effect.needs}; leave it out, or give that too")


def effective_fields(study: Study) -> set[str]:
    """Return the fields that affect at least one cell of a study."""
    lowest = {} if study.search is None else {each.field: each.low for each in study.search.ranges}
    defaults = {name: field.default for name, field in FIELDS.items() if not field.is_required} | lowest
    seed, tuned = study.axes["seed"][0], Tuned(study.points)
    unseen = dict(FIELDS)
    data_axes = [field for field in DATA_FIELDS if field in study.axes]
    points = {name: typed_values(point) for name, point in study.data_points.items()}
    for row in study.points_on([field for field in study.axes if field != "seed"]):
        if (data := points.get(point_name(row, data_axes))) is None:
            continue
        cell = {**defaults, **data, **row, "seed": seed}
        arm = value_name(cell[study.compare])
        cell |= {**study.per_arm.get(arm, {}), **(tuned.values(arm, seed) or {})}
        unseen = {name: field for name, field in unseen.items() if not field.has_effect(cell)}
    return FIELDS.keys() - unseen.keys()


def without_foreign(asked: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the fields of UFO-ViT if all models are other libraries' nets."""
    are_foreign = all(map(is_foreign, asked.get("model", [""])))
    return {name: values for name, values in asked.items() if not (are_foreign and FIELDS[name].traits.ufo_only)}


def _is_plain(field: CellField, values: list[Any], recipe: Mapping[str, Any]) -> bool:
    """Tell whether the values are what the field has anyway."""
    if field.name in recipe:
        return values == [recipe[field.name]]
    return not field.is_required and values == [field.default]


def _written(name: str, values: list[Any]) -> str:
    return f"{name}={','.join(map(value_name, values))}"
