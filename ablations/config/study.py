"""A study: a grid of cells with one question."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from ablations.config.cell import FIELDS, CellConfig
from ablations.config.claim import Claim
from ablations.config.errors import UsageError, message_of, shown
from ablations.config.limits import (
    MOST_CELLS,
    MOST_EXTENSIONS,
    MOST_POINTS,
    Name,
    Sentence,
    check_growth,
    check_num_cells,
)
from ablations.config.search import FIRST_TRIAL_SEED, Point, Search, Tuned, tuned_values
from ablations.config.task import METRIC_FIELDS, Metric, metric_of
from ablations.config.types import Task
from ablations.config.values import check_values, value_name

FORMAT: Literal[1] = 1
"""Version of the format of study.yaml."""

ALWAYS_AXES = ("norm", "seed")

DATA_FIELDS = tuple(field.name for field in FIELDS.values() if field.traits.selects_data)
"""Fields that select the images: each combination of their values has its own defaults, such as the patch."""


class NormRecord(BaseModel, frozen=True, extra="forbid"):
    """A normaliser as it was registered when its study was made, so that reading the study needs no plug-in.

    Args:
        label: label in figures.
        group: group of the registry.
        order: place in the registry.
        cross: whether class attention can use it.
        caveat: sentence to show with its results; empty for none.
    """

    label: Name
    group: Name
    order: Annotated[int, Field(ge=0, le=MOST_CELLS)]
    cross: bool
    caveat: Sentence = ""


class Study(BaseModel, frozen=True, extra="forbid"):
    """The complete definition of a study, as study.yaml holds it.

    Args:
        name: name of the study and its folder.
        question: question in one sentence, from the experiment file; empty if there is none.
        compare: field whose values are the arms.
        ref: reference arm; None if there is only one arm.
        recipe: recipe that gave the values of the other fields; None: not recorded.
        axes: values of every field that varies, in the order of the expansion; ``seed`` is one of them.
        fixed: value of every field that neither varies nor depends on the data set.
        per_data: defaults of each combination of `DATA_FIELDS` that are axes, by `point_name`; else ``fixed`` has them.
        search: search of the tuning that this study is or whose winners it trains; None: neither.
        points: values of the searched fields: for each trial of a tuning, or for each arm of its winners' study.
        plugins: modules that were imported to register normalisers.
        norms: normalisers by name; those of studies of earlier versions are not recorded.
        claims: claims that its results support or contradict.
        history: one line for each extension.
        num_looks: number of extensions of the axes that were requested when cells had results.
    """

    format: Literal[1] = FORMAT
    name: Annotated[str, Field(max_length=255)]
    question: Sentence = ""
    compare: str = "norm"
    ref: str | None = None
    recipe: Name | None = None
    axes: dict[str, list[Any]]
    fixed: dict[str, Any]
    per_data: dict[str, dict[str, Any]] = {}
    search: Search | None = None
    points: tuple[Point, ...] = ()
    plugins: tuple[str, ...] = ()
    norms: dict[str, NormRecord] = {}
    claims: tuple[Claim, ...] = ()
    history: tuple[str, ...] = ()
    num_looks: Annotated[int, Field(ge=0, le=MOST_EXTENSIONS)] = 0

    @property
    def arms(self) -> list[Any]:
        """Values of the compared field."""
        return self.axes[self.compare]

    @property
    def arm_names(self) -> list[str]:
        """Names of the arms, as in files, tables and ``--ref``."""
        return [value_name(value) for value in self.arms]

    @property
    def searched(self) -> list[str]:
        """Fields whose values are in the points, and neither in the axes nor fixed."""
        return [] if self.search is None else self.search.fields

    @property
    def is_tuning(self) -> bool:
        """Whether its cells are trials, each with its own point, and not replicates."""
        return self.fixed.get("scored_on") == "val"

    @property
    def task(self) -> Task:
        """Task of its cells."""
        return self.fixed.get("task", "classify")

    @property
    def metric(self) -> Metric:
        """Metric by which its cells are compared."""
        return metric_of({field: self.fixed.get(field, FIELDS[field].default) for field in METRIC_FIELDS})

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """Other axes with several values; tables and tests are per combination of these."""
        several = {field: values for field, values in self.axes.items() if len(values) > 1}
        return {field: values for field, values in several.items() if field not in (self.compare, "seed")}

    @property
    def condition_names(self) -> list[str]:
        """Combinations of the conditions' values, in the order of the expansion; one empty name without any."""
        conditions = self.conditions
        points = itertools.product(*conditions.values())
        return [point_name(dict(zip(conditions, values, strict=True)), conditions) for values in points]

    @property
    def num_conditions(self) -> int:
        """Number of combinations of the conditions' values."""
        return math.prod(map(len, self.conditions.values()))

    @property
    def data_points(self) -> dict[str, dict[str, Any]]:
        """Fields of each requested combination of `DATA_FIELDS` by `point_name`, without those of other axes."""
        fields = [field for field in DATA_FIELDS if field in self.axes]
        points = {}
        for values in itertools.product(*(self.axes[field] for field in fields)):
            point = dict(zip(fields, values, strict=True))
            name = point_name(point, fields)
            if name in self.per_data or not fields:  # an extended product has combinations that were not requested
                points[name] = {**self.fixed, **point, **self.per_data.get(name, {})}
        return points

    @property
    def effective_fields(self) -> set[str]:
        """Fields that affect at least one cell."""
        others = {field: values for field, values in self.axes.items() if field not in (*DATA_FIELDS, "seed")}
        lowest = {} if self.search is None else {each.field: each.low for each in self.search.ranges}
        defaults = {name: field.default for name, field in FIELDS.items() if not field.is_required} | lowest
        seed, tuned = self.axes["seed"][0], Tuned(self.points)
        unseen = dict(FIELDS)
        points = [_typed(point) for point in self.data_points.values()]
        for data, values in itertools.product(points, itertools.product(*others.values())):
            cell = {**defaults, **data, **dict(zip(others, values, strict=True)), "seed": seed}
            cell |= tuned.values(value_name(cell[self.compare]), seed) or {}
            unseen = {name: field for name, field in unseen.items() if not field.has_effect(cell)}
        return FIELDS.keys() - unseen.keys()

    def has(self, cell: CellConfig) -> bool:
        """Tell whether a cell belongs to the study: on its axes, with the study's values of every other field."""
        values = cell.model_dump()
        point = point_name(values, [field for field in DATA_FIELDS if field in self.axes])
        held = {**self.fixed, **self.per_data.get(point, {})}
        held |= tuned_values(self.points, self.arm_of(cell), cell.seed) or {}
        is_held = all(values[field] == value for field, value in held.items() if field in values)
        return is_held and all(cell[field] in values for field, values in self.axes.items())

    def arm_of(self, cell: CellConfig) -> str:
        """Return the name of a cell's arm."""
        return value_name(cell[self.compare])

    def condition_of(self, cell: CellConfig) -> str:
        """Return the name of a cell's condition; empty if there is only one."""
        return point_name(cell.model_dump(), self.conditions)

    def title_of(self, cell: CellConfig) -> str:
        """Return a cell's title: arm, condition and seed, or for a trial its number and point."""
        condition = self.condition_of(cell)
        arm = f"{self.arm_of(cell)} ({condition})" if condition else self.arm_of(cell)
        title = f"{arm} {self.unit} {self.number_of(cell.seed)}"
        return f"{title} at {point_name(cell.model_dump(), self.searched)}" if self.is_tuning else title

    @property
    def unit(self) -> str:
        """Word for one cell of an arm: ``seed``, or in a tuning ``trial``."""
        return "trial" if self.is_tuning else "seed"

    def number_of(self, seed: int) -> int:
        """Return a seed as shown to users: for a trial its number, from 0."""
        return seed - FIRST_TRIAL_SEED if self.is_tuning else seed

    def check_size(self) -> None:
        """Check the numbers of cells, claims and extensions, before anything is made of them.

        Raises:
            UsageError: one of them is above its limit.
        """
        check_num_cells({field: len(values) for field, values in self.axes.items()})
        check_growth(num_claims=len(self.claims), num_conditions=self.num_conditions, num_extensions=len(self.history))

    @model_validator(mode="after")
    def _is_complete(self) -> Study:
        self.check_size()
        for field in (self.compare, *ALWAYS_AXES):
            if not self.axes.get(field):
                raise ValueError(f"axes has no values of {field}")
        for field, values in self.axes.items():
            if field in METRIC_FIELDS:
                raise ValueError(f"axes has {field}, whose values have different metrics")
            if check_values(field, values) != values:
                raise ValueError(f"axes has values of {field} of a wrong type")
        for held in (self.fixed, *self.per_data.values()):
            _typed(held)
        points = self.data_points.values()
        for field, known in FIELDS.items():
            is_given = field in self.axes or field in self.searched or (points and all(field in p for p in points))
            if known.is_required and not is_given:
                raise ValueError(f"fixed has no {field}")
        self._check_points()
        if self.ref is not None:
            choose_ref(self.ref, self.arms)
        return self

    def _check_points(self) -> None:
        """Check that every cell has values of all searched fields, and that trials and replicates share no seed."""
        each = self.search is not None and self.search.sampler == "tpe" and self.is_tuning
        num_points = len(self.arms) * len(self.axes["seed"]) if each else len(self.points)
        if num_points > MOST_POINTS:
            raise ValueError(f"{num_points:,} trials are above the limit of {MOST_POINTS:,}; give fewer")
        for point in self.points:
            if sorted(point.values) != sorted(self.searched):
                raise ValueError(f"a point has values of {', '.join(point.values)}, not of {', '.join(self.searched)}")
        if self.search is None:
            return
        tuned, asked = Tuned(self.points), itertools.product(self.arm_names, self.axes["seed"])
        lacking = [(arm, seed) for arm, seed in asked if tuned.values(arm, seed) is None]
        if lacking and not (self.is_tuning and self.search.sampler == "tpe"):
            arm, seed = lacking[0]
            which = f" for seed {seed}" if self.is_tuning else ""
            raise ValueError(f"{arm} has no tuned values{which}: tune it with the others")
        for seed in self.axes["seed"]:
            if (seed >= FIRST_TRIAL_SEED) != self.is_tuning:
                what = "trials have seeds from" if self.is_tuning else "replicates have seeds below"
                raise ValueError(f"seed {seed}: {what} {FIRST_TRIAL_SEED:,}, so that no seed is both; give others")


def _typed(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that a study holds fixed, in the types of their fields."""
    typed = {}
    for field, value in held.items():
        if field not in FIELDS:
            raise ValueError(f"fixed has a field that this version does not know: {shown(field)}")
        try:
            typed[field] = FIELDS[field].adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(f"fixed has {field}={shown(value)}: {message_of(error.errors())}") from None
    return typed


def point_name(values: Mapping[str, Any], fields: Iterable[str]) -> str:
    """Format the values of some fields for conditions and messages.

    >>> point_name({"lr": 0.001, "lpi": False, "depth": 2}, ["lr", "lpi"])
    'lr=0.001, lpi=off'
    """
    return ", ".join(f"{field}={value_name(values[field])}" for field in fields)


def choose_ref(ref: str | None, values: list[Any]) -> str | None:
    """Return the reference arm: the given one, else xnorm, else the first; None for one arm.

    Raises:
        UsageError: a reference that is not one of the arms.
    """
    arms = [value_name(value) for value in values]
    if ref is not None and ref not in arms:
        raise UsageError(f"--ref {ref} is not one of the arms: {', '.join(arms)}")
    if ref is not None or len(arms) < 2:
        return ref
    return "xnorm" if "xnorm" in arms else arms[0]
