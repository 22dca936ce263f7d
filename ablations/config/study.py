"""A study: a grid of cells with one question."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from ablations.config.cell import FIELDS, CellConfig
from ablations.config.claim import Claim
from ablations.config.errors import UsageError, message_of, shown
from ablations.config.grid import SAME_FOR_ARMS, Grid, check_grids
from ablations.config.limits import (
    MOST_EXTENSIONS,
    Name,
    Sentence,
    check_growth,
    check_num_cells,
)
from ablations.config.make_grids import ALWAYS_AXES
from ablations.config.norm_record import NormRecord
from ablations.config.search import FIRST_TRIAL_SEED, Point, Search, check_points, tuned_values
from ablations.config.task import METRIC_FIELDS, Metric, metric_of
from ablations.config.types import Task
from ablations.config.values import check_values, value_name

FORMAT: Literal[1] = 1
"""Version of the format of study.yaml."""

DATA_FIELDS = tuple(field.name for field in FIELDS.values() if field.traits.selects_data)
"""Fields that select the images: each combination of their values has its own defaults, such as the patch."""


class Study(BaseModel, frozen=True, extra="forbid"):
    """The complete definition of a study, as study.yaml holds it.

    Args:
        name: name of the study and its folder.
        question: question in one sentence, from the experiment file; empty if there is none.
        compare: field whose values are the arms.
        ref: reference arm; None if there is only one arm.
        recipe: recipe that gave the values of the other fields; None: not recorded.
        axes: values of every field that varies, in the order of the expansion; ``seed`` is one of them.
        grids: grids whose union the study is, each with values of all axes; empty for the product of the axes.
        per_arm: values of the fields that depend on the arm, by the name of the arm; each arm has all of them.
        fixed: value of every field that neither varies nor depends on the data set or the arm.
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
    grids: tuple[Grid, ...] = ()
    per_arm: dict[str, dict[str, Any]] = {}
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
    def parts(self) -> tuple[Grid, ...]:
        """Grids whose union it is."""
        return self.grids or (Grid.model_construct(axes=self.axes),)

    @property
    def fields_per_arm(self) -> list[str]:
        """Fields that depend on the arm."""
        return list(next(iter(self.per_arm.values()), {}))

    @property
    def tied(self) -> list[str]:
        """Axes that are zipped with the compared field, so that arms differ in them too."""
        return list(dict.fromkeys(name for grid in self.grids for name in grid.partners(self.compare)))

    @property
    def tied_texts(self) -> dict[str, str]:
        """Values that are zipped with each arm, by its name; empty if nothing is."""
        points = self.points_on([self.compare, *self.tied]) if self.tied else []
        return {value_name(point[self.compare]): point_name(point, self.tied) for point in points}

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """Other axes with several values; tables and tests are per combination of these."""
        several = {field: values for field, values in self.axes.items() if len(values) > 1}
        arm = {self.compare, "seed", *self.tied}
        return {field: values for field, values in several.items() if field not in arm}

    def points_on(self, fields: Collection[str]) -> list[dict[str, Any]]:
        """Return the combinations of some axes' values that occur, in the order of the expansion without exclusions.

        Args:
            fields: axes, without ``seed``.
        """
        found: Iterable[tuple[Any, ...]] = itertools.product(*(self.axes[field] for field in fields))
        if self.grids:
            occur = {tuple(row[field] for field in fields) for grid in self.grids for row in grid.rows()}
            found = dict.fromkeys(tuple(row[f] for f in fields) for grid in self.grids for row in grid.whole_rows())
            found = (values for values in found if values in occur)
        return [dict(zip(fields, values, strict=True)) for values in found]

    @property
    def condition_names(self) -> list[str]:
        """Combinations of the conditions' values, in the order of the expansion; one empty name without any."""
        conditions = self.conditions
        return [point_name(point, conditions) for point in self.points_on(conditions)]

    @property
    def num_conditions(self) -> int:
        """Number of combinations of the conditions' values."""
        return len(self.condition_names) if self.grids else math.prod(map(len, self.conditions.values()))

    @property
    def arms_by_condition(self) -> dict[str, list[str]]:
        """Names of the arms that each condition has."""
        conditions, found = self.conditions, dict[str, list[str]]()
        for point in self.points_on([self.compare, *conditions]):
            arms = found.setdefault(point_name(point, conditions), [])
            arms.append(value_name(point[self.compare]))
        return {name: [arm for arm in self.arm_names if arm in found[name]] for name in self.condition_names}

    @property
    def places(self) -> list[tuple[str, str, int]]:
        """Arm, condition and seed of every cell, condition by condition."""
        conditions, held = self.conditions, dict[tuple[str, str], set[int]]()
        for grid in self.parts:
            for row in grid.rows():
                place = (value_name(row[self.compare]), point_name(row, conditions))
                held.setdefault(place, set()).update(grid.axes["seed"])
        asked = itertools.product(self.condition_names, self.arm_names)
        seeds = self.axes["seed"]
        return [(arm, name, seed) for name, arm in asked for seed in seeds if seed in held.get((arm, name), ())]

    @property
    def data_points(self) -> dict[str, dict[str, Any]]:
        """Fields of each requested combination of `DATA_FIELDS` by `point_name`, without those of other axes."""
        fields = [field for field in DATA_FIELDS if field in self.axes]
        points = {}
        for point in self.points_on(fields):
            name = point_name(point, fields)
            if name in self.per_data or not fields:  # an extended product has combinations that were not requested
                points[name] = {**self.fixed, **point, **self.per_data.get(name, {})}
        return points

    def has(self, cell: CellConfig) -> bool:
        """Tell whether a cell belongs to the study: in a grid, with the study's values of every other field."""
        return self.holds(cell.model_dump())

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a cell with these values belongs to the study; what they leave out is not compared."""
        held = self.held(values)
        is_held = all(values[field] == value for field, value in held.items() if field in values)
        return is_held and any(grid.has(values) for grid in self.parts)

    def held(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that the study has of the fields off its axes, for a cell with these values on them."""
        point = point_name(values, [field for field in DATA_FIELDS if field in self.axes])
        arm = value_name(values[self.compare])
        tuned = tuned_values(self.points, arm, values["seed"]) or {}
        return {**self.fixed, **self.per_data.get(point, {}), **self.per_arm.get(arm, {}), **tuned}

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
        if self.grids:
            check_grids(self.grids)
        else:
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
        for held in (self.fixed, *self.per_data.values(), *self.per_arm.values()):
            typed_values(held)
        self.check_grids()
        points = self.data_points.values()
        varied = {*self.axes, *self.searched, *self.fields_per_arm}
        for field, known in FIELDS.items():
            is_given = field in varied or (points and all(field in p for p in points))
            if known.is_required and not is_given:
                raise ValueError(f"fixed has no {field}")
        check_points(
            self.points, search=self.search, arms=self.arm_names, seeds=self.axes["seed"], is_tuning=self.is_tuning
        )
        if self.ref is not None:
            choose_ref(self.ref, self.arms)
        return self

    def check_grids(self) -> None:
        """Check that the grids have the study's axes, each value a cell, and each arm one value of its own fields.

        Raises:
            ValueError: they have not.
        """
        for grid in self.grids:
            if grid.axes.keys() != self.axes.keys():
                raise ValueError("grids have other axes than the study")
        rows = self.points_on([field for field in self.axes if field != "seed"]) if self.grids else []
        seeds = [{"seed": seed} for grid in self.grids for seed in grid.axes["seed"]]
        for field, values in self.axes.items() if self.grids else ():
            known = dict.fromkeys(row[field] for row in (seeds if field == "seed" else rows))
            if idle := [value for value in values if value not in known]:
                raise ValueError(f"no cell has {field}={value_name(idle[0])}: leave it out")
            if len(known) > len(values):
                raise ValueError(f"grids have other values of {field} than axes")
        if same := [field for field in self.tied if field in SAME_FOR_ARMS]:
            raise ValueError(f"{same[0]} is zipped with {self.compare}, but arms see the same images")
        conditions, first = self.conditions, dict[tuple[str, str], dict[str, Any]]()
        for row in rows if self.tied else ():
            place = (value_name(row[self.compare]), point_name(row, conditions))
            if (other := first.setdefault(place, row)) != row:
                one, two = point_name(other, self.tied), point_name(row, self.tied)
                raise ValueError(f"{place[0]} has {one} and {two}, but an arm has one value of what is zipped with it")
        for arm, own in self.per_arm.items():
            if arm not in self.arm_names or list(own) != self.fields_per_arm:
                raise ValueError(f"per_arm has {shown(arm)} with {', '.join(own)}, but each arm needs a value of each")
        if self.per_arm and len(self.per_arm) < len(self.arms):
            raise ValueError("per_arm lacks an arm")
        held = [self.axes, self.fixed, *self.per_data.values(), dict.fromkeys(self.searched)]
        if twice := [field for field in self.fields_per_arm if any(field in each for each in held)]:
            raise ValueError(f"per_arm has {twice[0]}, which has other values too")


def typed_values(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that a study holds fixed, in the types of their fields.

    Raises:
        ValueError: a field that is unknown, or a value that it cannot have.
    """
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
