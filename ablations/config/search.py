"""A search: ranges of a tuning, and its points."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from ablations.config.cell import FIELDS
from ablations.config.errors import UsageError, first_error
from ablations.config.limits import MOST_POINTS
from ablations.config.nets import is_foreign
from ablations.config.values import check_field, check_values, number_type

FIRST_TRIAL_SEED = 10_000
"""Seed of trial 0 in every arm; trial k has 10,000 + k. Replicates have lower seeds, so the two never overlap."""

DIGITS = 4
"""Significant digits of a point's values, few enough to type and to print in a paper."""

RANGE = re.compile(r"(?P<field>\w+)=(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(?P<log>:log)?")

EXAMPLE = "lr=1e-4..1e-2:log,weight_decay=0.01..0.2:log"

Sampler = Literal["sobol", "tpe"]


class Range(BaseModel, frozen=True, extra="forbid"):
    """The range of one searched field.

    Args:
        field: name of a numeric field of a cell.
        low: smallest value; above 0 on a log scale.
        high: largest value, included; above `low`.
        log: whether values are uniform on a log scale.
    """

    field: str
    low: Annotated[int | float, Field(allow_inf_nan=False)]
    high: Annotated[int | float, Field(allow_inf_nan=False)]
    log: bool = False

    @model_validator(mode="after")
    def _is_searchable(self) -> Range:
        try:
            check_field(self.field)
            if self.field not in searchable_fields():
                raise ValueError(f"{self.field} cannot be searched")
            for value in (self.low, self.high):
                check_values(self.field, [value])
        except UsageError as error:
            raise ValueError(str(error)) from None
        if not self.low < self.high:
            raise ValueError(f"{self.field}: {self.low:g}..{self.high:g} is empty; give LOW..HIGH with LOW below HIGH")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.field}: a range on a log scale must start above 0, not at {self.low:g}")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether the field takes only integers."""
        return number_type(self.field) is int

    def value_at(self, position: float) -> int | float:
        """Return the value at a position in the range.

        Args:
            position: position on the range's scale, in [0, 1).

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).value_at(0.5)
        0.001
        >>> Range(field="depth", low=1, high=4).value_at(0.99)
        4
        """
        low, high = (self.low, self.high + 1) if self.is_integer else (self.low, self.high)
        value = low * (high / low) ** position if self.log else low + (high - low) * position
        return min(math.floor(value), int(self.high)) if self.is_integer else self.rounded(value)

    def rounded(self, value: float) -> int | float:
        """Round a value to the digits of a point, within the range.

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).rounded(0.00123456)
        0.001235
        """
        if self.is_integer:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def position(self, value: float) -> float:
        """Return the position of a value in the range, from 0 at its low end to 1 at its high end.

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).position(1e-3)
        0.5
        """
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        """Return the range in the syntax of the command line."""
        return f"{self.field}={self.low}..{self.high}{':log' * self.log}"


class Search(BaseModel, frozen=True, extra="forbid"):
    """The search of a tuning: ranges and sampler.

    Args:
        ranges: ranges of the searched fields, in the order of a cell's fields.
        sampler: ``sobol``: scrambled Sobol points, the same for every arm; ``tpe``: a few, then from an arm's results.
        seed: seed of the points.
    """

    ranges: Annotated[tuple[Range, ...], Field(min_length=1)]
    sampler: Sampler = "sobol"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _names_each_field_once(self) -> Search:
        if repeated := sorted({field for field in self.fields if self.fields.count(field) > 1}):
            raise ValueError(f"{repeated[0]} is searched twice; give one range")
        return self

    @property
    def fields(self) -> list[str]:
        """Names of the searched fields."""
        return [each.field for each in self.ranges]

    def points(self, num_points: int) -> list[dict[str, int | float]]:
        """Draw points from a scrambled Sobol sequence; fewer points are the first of more.

        A. B. Owen, "On dropping the first Sobol' point" (arXiv 2008.08051), for the scramble and the powers of two.

        Args:
            num_points: number of points.

        Raises:
            UsageError: ranges with fewer distinct points.
        """
        from scipy.stats import qmc

        with warnings.catch_warnings(action="ignore", category=UserWarning):  # not a power of two: the plan reports it
            positions = qmc.Sobol(len(self.ranges), scramble=True, rng=self.seed).random(num_points)
        points = [{r.field: r.value_at(float(u)) for r, u in zip(self.ranges, row, strict=True)} for row in positions]
        distinct = len({tuple(point.values()) for point in points})
        if distinct < num_points:
            raise UsageError(f"{self}: only {distinct} of {num_points} points are distinct; give fewer trials")
        return points

    def __str__(self) -> str:
        """Return the ranges in the syntax of the command line."""
        return ",".join(map(str, self.ranges))


class Point(BaseModel, frozen=True, extra="forbid"):
    """Values of the searched fields in some cells of a study.

    Args:
        values: value of each searched field.
        arm: arm of the cells; None: every arm.
        seed: seed of the cells; None: every seed.
    """

    values: dict[str, int | float]
    arm: str | None = None
    seed: int | None = None

    @property
    def key(self) -> tuple[str | None, int | None]:
        """Arm and seed of the cells that have the point."""
        return self.arm, self.seed


def tuned_values(points: Iterable[Point], arm: str, seed: int) -> Mapping[str, int | float] | None:
    """Return the values of a cell's searched fields, those of the first point that applies; None if there is none."""
    return next((p.values for p in points if p.arm in (None, arm) and p.seed in (None, seed)), None)


class Tuned:
    """`tuned_values` for many cells.

    Args:
        points: points.

    >>> Tuned([Point(values={"lr": 0.1}, arm="l2"), Point(values={"lr": 0.2}, seed=3)]).values("l2", 3)
    {'lr': 0.1}
    """

    def __init__(self, points: Iterable[Point]) -> None:
        self._by_key: dict[tuple[str | None, int | None], tuple[int, dict[str, int | float]]] = {}
        for number, point in enumerate(points):
            self._by_key.setdefault(point.key, (number, point.values))

    def values(self, arm: str, seed: int) -> Mapping[str, int | float] | None:
        """Return the values of a cell's searched fields; None if there is no point for it."""
        keys = (None, None), (arm, None), (None, seed), (arm, seed)
        found = [self._by_key[key] for key in keys if key in self._by_key]
        return min(found, key=lambda each: each[0])[1] if found else None


def check_points(
    points: Sequence[Point], *, search: Search | None, arms: Sequence[str], seeds: Sequence[int], is_tuning: bool
) -> None:
    """Check that every cell has values of all searched fields, and that trials and replicates share no seed.

    Args:
        points: points of a study.
        search: its search; None: nothing is searched.
        arms: names of its arms.
        seeds: its seeds.
        is_tuning: whether its cells are trials.

    Raises:
        ValueError: a point with other fields, too many trials, a cell without values, or a seed of the other kind.
    """
    each = search is not None and search.sampler == "tpe" and is_tuning
    num_points = len(arms) * len(seeds) if each else len(points)
    if num_points > MOST_POINTS:
        raise ValueError(f"{num_points:,} trials are above the limit of {MOST_POINTS:,}; give fewer")
    searched = [] if search is None else search.fields
    for point in points:
        if sorted(point.values) != sorted(searched):
            raise ValueError(f"a point has values of {', '.join(point.values)}, not of {', '.join(searched)}")
    if search is None:
        return
    tuned, asked = Tuned(points), itertools.product(arms, seeds)
    lacking = [(arm, seed) for arm, seed in asked if tuned.values(arm, seed) is None]
    if lacking and not (is_tuning and search.sampler == "tpe"):
        arm, seed = lacking[0]
        which = f" for seed {seed}" if is_tuning else ""
        raise ValueError(f"{arm} has no tuned values{which}: tune it with the others")
    for seed in seeds:
        if (seed >= FIRST_TRIAL_SEED) != is_tuning:
            what = "trials have seeds from" if is_tuning else "replicates have seeds below"
            raise ValueError(f"seed {seed}: {what} {FIRST_TRIAL_SEED:,}, so that no seed is both; give others")


def searchable_fields() -> list[str]:
    """Return the fields that a search may vary: numbers that select neither the replicate nor the data."""
    asked = (field for field in FIELDS.values() if field.traits.searchable and not field.traits.is_derived)
    return [field.name for field in asked if number_type(field.name) is not None]


def parse_search(ranges: str | Mapping[str, Any], *, sampler: Sampler = "sobol", seed: int = 0) -> Search:
    """Parse a search.

    Args:
        ranges: ``FIELD=LOW..HIGH[:log]``, separated by commas; or ``LOW..HIGH[:log]`` by field, as in a file.
        sampler: name of the sampler, ``sobol`` or ``tpe``.
        seed: seed of the points.

    Raises:
        UsageError: a range that cannot be parsed or searched, a repeated field, or an unknown sampler.

    >>> str(parse_search("weight_decay=0.01..0.2,lr=1e-4..1e-2:log"))
    'lr=0.0001..0.01:log,weight_decay=0.01..0.2'
    """
    parts = ranges.split(",") if isinstance(ranges, str) else [f"{field}={text}" for field, text in ranges.items()]
    found = []
    for part in parts:
        if not (match := RANGE.fullmatch(part.strip())):
            raise UsageError(f"--search {part.strip()}: write FIELD=LOW..HIGH or FIELD=LOW..HIGH:log, like {EXAMPLE}")
        low, high = (_number(match["field"], match[end]) for end in ("low", "high"))
        try:
            found.append(Range(field=match["field"], low=low, high=high, log=bool(match["log"])))
        except ValidationError as error:
            raise UsageError(f"--search {part.strip()}: {first_error(error)}") from None
    try:
        found.sort(key=lambda one: list(FIELDS).index(one.field))
        return Search(ranges=tuple(found), sampler=sampler, seed=seed)
    except ValidationError as error:
        raise UsageError(f"--search: {first_error(error)}") from None


def check_search(search: Search, *, compare: str, asked: Collection[str], models: Sequence[str]) -> None:
    """Reject a search of fields that cannot be tuned in this study.

    Args:
        search: search of the tuning.
        compare: field whose values are the arms.
        asked: fields that have given values.
        models: names of the nets.

    Raises:
        UsageError: a field that is compared, has a given value, or does not apply to the nets.
    """
    for field in search.fields:
        if field == compare:
            raise UsageError(f"--search {field}: its values are the arms; compare another field")
        if field in asked:
            raise UsageError(f"--search {field}: it is given a value already; leave one out")
        if FIELDS[field].traits.ufo_only and (foreign := [model for model in models if is_foreign(model)]):
            raise UsageError(f"--search {field}: it does not apply to {foreign[0]}; leave it out")


def _number(field: str, text: str) -> int | float:
    check_field(field)
    if field not in searchable_fields():
        raise UsageError(f"--search {field}: it cannot be searched. Valid: {', '.join(searchable_fields())}")
    try:
        return int(text) if number_type(field) is int else float(text)
    except ValueError:
        kind = "an integer" if number_type(field) is int else "a number"
        raise UsageError(f"--search {field}: {text!r} is not {kind}") from None
