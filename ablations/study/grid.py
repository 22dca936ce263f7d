"""A study: a grid of cells with one question, and its cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ablations.study.cell import CellConfig
from ablations.study.claim import Claim
from ablations.study.config import make_config
from ablations.study.errors import UsageError
from ablations.study.values import check_values, value_name

FORMAT: Literal[1] = 1
"""Version of study.yaml."""

ALWAYS_AXES = ("norm", "seed")

DATA_FIELDS = ("data", "image_size", "classes")
"""What a data set is in a study: each combination of their values decides fields of its own, such as the patch."""

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the fields of a cell that were asked for to a value for every other field that needs one."""


class Study(BaseModel):
    """What was asked, complete.

    Args:
        name: of the study and its folder.
        question: one sentence, from the experiment file; empty where there is none.
        compare: the field whose values are the arms.
        ref: the arm that every other is compared with; None where there is one arm only.
        recipe: gave the values of fields that were not asked for; None: not recorded.
        axes: values of every field that varies, in the order of the expansion; ``seed`` is one of them.
        fixed: value of every field that neither varies nor is decided by the data set.
        per_data: where one of `DATA_FIELDS` is an axis, for each combination the fields that it decides and that were
            not asked for; else they stand in ``fixed``.
        plugins: modules that were imported to register normalisers.
        claims: what its numbers are to support or to contradict.
        history: one line for each extension.
        num_looks: extensions of its axes that were asked for when cells of it had results, and so could be seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    question: str = ""
    compare: str = "norm"
    ref: str | None = None
    recipe: str | None = None
    axes: dict[str, list[Any]]
    fixed: dict[str, Any]
    per_data: dict[str, dict[str, Any]] = {}
    plugins: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    history: tuple[str, ...] = ()
    num_looks: int = 0

    @property
    def arms(self) -> list[Any]:
        """Values of the compared field."""
        return self.axes[self.compare]

    @property
    def arm_names(self) -> list[str]:
        """Each arm as files, tables and ``--ref`` have it."""
        return [value_name(value) for value in self.arms]

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """Every other axis of several values: tables and tests are per combination of them."""
        others = {field: values for field, values in self.axes.items() if field not in (self.compare, "seed")}
        return {field: values for field, values in others.items() if len(values) > 1}

    @property
    def condition_names(self) -> list[str]:
        """Every combination of the conditions' values, in the order of the expansion; one empty name without any."""
        points = itertools.product(*self.conditions.values())
        return [point_name(dict(zip(self.conditions, values, strict=True)), self.conditions) for values in points]

    @property
    def data_points(self) -> dict[str, dict[str, Any]]:
        """Each data set at each image size that was asked for, by `point_name`: every field that is no other axis."""
        fields = [field for field in DATA_FIELDS if field in self.axes]
        points = {}
        for values in itertools.product(*(self.axes[field] for field in fields)):
            point = dict(zip(fields, values, strict=True))
            name = point_name(point, fields)
            if name in self.per_data or not fields:  # a product that has grown has points that nobody asked for yet
                points[name] = {**self.fixed, **point, **self.per_data.get(name, {})}
        return points

    def has(self, cell: CellConfig) -> bool:
        """Whether a cell is a point of the study: on its axes, and with every other field as the study holds it."""
        values = cell.model_dump(mode="json")
        point = point_name(values, [field for field in DATA_FIELDS if field in self.axes])
        held = {**self.fixed, **self.per_data.get(point, {})}
        is_held = all(values[field] == value for field, value in held.items() if field in values)
        return is_held and all(getattr(cell, field) in values for field, values in self.axes.items())

    def arm_of(self, cell: CellConfig) -> str:
        """Name a cell's arm."""
        return value_name(getattr(cell, self.compare))

    def condition_of(self, cell: CellConfig) -> str:
        """Name a cell's point on every axis but the arms and the seeds; empty where there is one condition only."""
        return point_name(dict(cell), self.conditions)

    @model_validator(mode="after")
    def _is_complete(self) -> Study:
        for field in (self.compare, *ALWAYS_AXES):
            if not self.axes.get(field):
                raise ValueError(f"axes has no values of {field}")
        for field, values in self.axes.items():
            if check_values(field, values) != values:
                raise ValueError(f"axes has values of {field} of another type")
        for field, info in CellConfig.model_fields.items():
            points = self.data_points.values()
            if info.is_required() and field not in self.axes and not (points and all(field in p for p in points)):
                raise ValueError(f"fixed has no {field}")
        if self.ref is not None:
            choose_ref(self.ref, self.arms)
        return self


def point_name(values: Mapping[str, Any], fields: Iterable[str]) -> str:
    """Write the values of some fields as conditions and messages have them.

    >>> point_name({"lr": 0.001, "lpi": False, "depth": 2}, ["lr", "lpi"])
    'lr=0.001, lpi=off'
    """
    return ", ".join(f"{field}={value_name(values[field])}" for field in fields)


def expand(axes: Mapping[str, list[Any]], fixed: Mapping[str, Any], defaults: Defaults) -> list[CellConfig]:
    """Expand the product of the axes, seed by seed, so that an interrupted grid compares equal numbers.

    Raises:
        UsageError: values that do not go together.
    """
    others = {field: values for field, values in axes.items() if field != "seed"}
    cells = []
    for seed in axes["seed"]:
        for point in itertools.product(*others.values()):
            asked = {**fixed, **dict(zip(others, point, strict=True)), "seed": seed}
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
    plugins: tuple[str, ...] = (),
    claims: tuple[Claim, ...] = (),
) -> tuple[Study, list[CellConfig]]:
    """Make a study and its cells from lists of values.

    Args:
        asked: values for each field that was named; several make an axis.
        recipe: by which ``defaults`` gives the others.

    Raises:
        UsageError: a reference that is no arm, values that do not go together, or arms that differ in more than one
            field by default.
    """
    fields = sorted(asked, key=lambda field: (field != compare, field == "seed"))
    axes = {f: list(asked[f]) for f in fields if len(asked[f]) > 1 or f in (*ALWAYS_AXES, compare)}
    if compare not in axes:
        raise UsageError(f"--compare {compare}: give the values to compare, for instance --set {compare}=a,b")
    single = {field: asked[field][0] for field in asked if field not in axes}
    cells = expand(axes, single, defaults)
    per_data = _decided_by_data(axes, single, defaults)
    decided = {field for own in per_data.values() for field in own}
    first = cells[0].model_dump(mode="json")
    fixed = {field: value for field, value in first.items() if field not in axes and field not in decided}
    if compare in DATA_FIELDS:
        _check_one_difference(compare, per_data)
    study = Study(
        name=name,
        question=question,
        compare=compare,
        ref=choose_ref(ref, axes[compare]),
        recipe=recipe,
        axes=axes,
        fixed=fixed,
        per_data=per_data,
        plugins=plugins,
        claims=claims,
    )
    return study, cells


def _decided_by_data(
    axes: Mapping[str, list[Any]], single: Mapping[str, Any], defaults: Defaults
) -> dict[str, dict[str, Any]]:
    """Return what each data set at each image size decides, of what was not asked for; nothing where there is one."""
    data_axes = {field: axes[field] for field in DATA_FIELDS if field in axes}
    per_data = {}
    for values in itertools.product(*data_axes.values()) if data_axes else ():
        point = {**single, **dict(zip(data_axes, values, strict=True))}
        own = {field: value for field, value in defaults(point).items() if field not in (single.keys() | axes.keys())}
        per_data[point_name(point, data_axes)] = own
    return per_data


def _check_one_difference(compare: str, per_data: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = per_data.values()
    differ = [f for f, v in first.items() if f != "data_fingerprint" and any(own[f] != v for own in others)]
    if differ:
        raise UsageError(
            f"--compare {compare}: by default its values differ in {', '.join(differ)} too; give each with --set"
        )


def choose_ref(ref: str | None, values: list[Any]) -> str | None:
    """Return the reference among some arms: the one that is asked for, or else xnorm, or the first; None for one arm.

    Raises:
        UsageError: it is none of them.
    """
    arms = [value_name(value) for value in values]
    if ref is not None and ref not in arms:
        raise UsageError(f"--ref {ref} is none of the arms: {', '.join(arms)}")
    if ref is not None or len(arms) < 2:
        return ref
    return "xnorm" if "xnorm" in arms else arms[0]
