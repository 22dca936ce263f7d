"""A search: the ranges of a tuning, its points, and how they are drawn."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ablations.config.cell import FIELDS
from ablations.config.errors import UsageError, first_error
from ablations.config.nets import is_foreign
from ablations.config.values import check_field, check_values, number_type

FIRST_TRIAL_SEED = 10_000
"""Trial k has seed 10,000 + k in every arm; seeds below are for confirmation, so that the two never overlap."""

DIGITS = 4
"""Significant digits of a point's values, so that they can be read, typed and written into a paper."""

RANGE = re.compile(r"(?P<field>\w+)=(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(?P<log>:log)?")

EXAMPLE = "lr=1e-4..1e-2:log,weight_decay=0.01..0.2:log"

Sampler = Literal["sobol", "tpe"]


class Range(BaseModel):
    """The values of one field that a search looks at.

    Args:
        field: of a cell; a number.
        low: the smallest value.
        high: the largest.
        log: whether equal ratios are equally likely, and not equal steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
            raise ValueError(f"{self.field}: {self.low:g}..{self.high:g} has no room; give LOW..HIGH")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.field}: a range on a log scale begins above 0, not at {self.low:g}")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether the field takes whole numbers alone."""
        return number_type(self.field) is int

    def at(self, place: float) -> int | float:
        """Return the value at a place of the range.

        Args:
            place: in [0, 1), uniform on the range's scale.

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).at(0.5), Range(field="depth", low=1, high=4).at(0.99)
        (0.001, 4)
        """
        low, high = (self.low, self.high + 1) if self.is_integer else (self.low, self.high)
        value = low * (high / low) ** place if self.log else low + (high - low) * place
        return min(math.floor(value), int(self.high)) if self.is_integer else self.rounded(value)

    def rounded(self, value: float) -> int | float:
        """Return a value of the range as a point has it, with few digits.

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).rounded(0.00123456)
        0.001235
        """
        if self.is_integer:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def place(self, value: float) -> float:
        """Return the place of a value in the range: 0 at its low end, 1 at its high one.

        >>> Range(field="lr", low=1e-4, high=1e-2, log=True).place(1e-3)
        0.5
        """
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        """Write it as the command line has it."""
        return f"{self.field}={self.low}..{self.high}{':log' * self.log}"


class Search(BaseModel):
    """What a tuning looks for, and how.

    Args:
        ranges: of the searched fields, in the order of a cell's.
        sampler: ``sobol``: scrambled Sobol points, the same for every arm; ``tpe``: after a few of those each arm's
            points follow from its own results.
        seed: of the points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: Annotated[tuple[Range, ...], Field(min_length=1)]
    sampler: Sampler = "sobol"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _names_each_field_once(self) -> Search:
        if repeated := sorted({field for field in self.fields if self.fields.count(field) > 1}):
            raise ValueError(f"{repeated[0]} is searched twice")
        return self

    @property
    def fields(self) -> list[str]:
        """The searched fields."""
        return [each.field for each in self.ranges]

    def points(self, num_points: int) -> list[dict[str, int | float]]:
        """Draw points by a scrambled Sobol sequence: the first of many are the same as few.

        A. B. Owen, "On dropping the first Sobol' point" (arXiv 2008.08051), for the scramble and the powers of two.

        Args:
            num_points: how many.

        Raises:
            UsageError: the ranges do not have as many different points.
        """
        from scipy.stats import qmc

        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of no power of two: the plan says so
            places = qmc.Sobol(len(self.ranges), scramble=True, rng=self.seed).random(num_points)
        points = [{r.field: r.at(float(u)) for r, u in zip(self.ranges, row, strict=True)} for row in places]
        distinct = len({tuple(point.values()) for point in points})
        if distinct < num_points:
            raise UsageError(f"{self}: {num_points} points of it are only {distinct} different ones; ask for fewer")
        return points

    def __str__(self) -> str:
        """Write its ranges as the command line has them."""
        return ",".join(map(str, self.ranges))


class Point(BaseModel):
    """Values of the searched fields that some cells of a study have.

    Args:
        values: of each searched field.
        arm: whose; None: every arm's.
        seed: of which; None: of every seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, int | float]
    arm: str | None = None
    seed: int | None = None

    @property
    def key(self) -> tuple[str | None, int | None]:
        """Of which cells it is."""
        return self.arm, self.seed


def point_of(points: Iterable[Point], arm: str, seed: int) -> Mapping[str, int | float] | None:
    """Return the values of the searched fields of a cell; None where the points say nothing of it."""
    return next((p.values for p in points if p.arm in (None, arm) and p.seed in (None, seed)), None)


def searchable_fields() -> list[str]:
    """Return the fields of a cell that a search may vary: numbers that are neither a replicate nor the data."""
    asked = (field for field in FIELDS.values() if field.traits.searchable and not field.traits.is_derived)
    return [field.name for field in asked if number_type(field.name) is not None]


def parse_search(ranges: str | Mapping[str, Any], *, sampler: Sampler = "sobol", seed: int = 0) -> Search:
    """Read a search.

    Args:
        ranges: ``FIELD=LOW..HIGH[:log]``, a comma between each and the next; or the same by field, as in a file.
        sampler: ``sobol`` or ``tpe``.
        seed: of the points.

    Raises:
        UsageError: anything else, in one line.

    >>> str(parse_search("weight_decay=0.01..0.2,lr=1e-4..1e-2:log"))
    'lr=0.0001..0.01:log,weight_decay=0.01..0.2'
    """
    parts = ranges.split(",") if isinstance(ranges, str) else [f"{field}={text}" for field, text in ranges.items()]
    found = []
    order = list(FIELDS)
    for part in parts:
        if not (match := RANGE.fullmatch(part.strip())):
            raise UsageError(f"--search {part.strip()}: write FIELD=LOW..HIGH or FIELD=LOW..HIGH:log, as {EXAMPLE}")
        low, high = (_number(match["field"], match[end]) for end in ("low", "high"))
        try:
            found.append(Range(field=match["field"], low=low, high=high, log=bool(match["log"])))
        except ValidationError as error:
            raise UsageError(f"--search {part.strip()}: {first_error(error)}") from None
    try:
        return Search(
            ranges=tuple(sorted(found, key=lambda one: order.index(one.field))),
            sampler=sampler,
            seed=seed,
        )
    except ValidationError as error:
        raise UsageError(f"--search: {first_error(error)}") from None


def check_search(search: Search, *, compare: str, asked: Collection[str], models: Sequence[str]) -> None:
    """Refuse a search of what is asked for otherwise.

    Args:
        search: the ranges.
        compare: the field whose values are the arms.
        asked: fields with values of their own.
        models: names of the nets.

    Raises:
        UsageError: a field that is compared, is given already, or means nothing to these nets.
    """
    for field in search.fields:
        if field == compare:
            raise UsageError(f"--search {field}: its values are the arms; compare another field")
        if field in asked:
            raise UsageError(f"--search {field}: it is given a value already; leave one of the two out")
        if FIELDS[field].traits.ufo_only and (foreign := [model for model in models if is_foreign(model)]):
            raise UsageError(f"--search {field}: it means nothing to {foreign[0]}")


def _number(field: str, text: str) -> int | float:
    check_field(field)
    if field not in searchable_fields():
        raise UsageError(f"--search {field}: it cannot be searched. Valid: {', '.join(searchable_fields())}")
    try:
        return int(text) if number_type(field) is int else float(text)
    except ValueError:
        whole = "whole " if number_type(field) is int else ""
        raise UsageError(f"--search {field}: {text!r} is no {whole}number") from None
