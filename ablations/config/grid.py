"""A grid: a product of axes, some of them zipped, without the combinations that are left out.

A study is one product of its axes, or the union of several grids over the same axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, model_validator

from ablations.config.cell import FIELDS
from ablations.config.limits import check_num_cells
from ablations.config.seeds import seed_ranges
from ablations.config.values import check_values, plural, value_name

SAME_FOR_ARMS = (
    *(name for name, known in FIELDS.items() if known.traits.selects_data),
    *("seed", "task", "masks", "eval_limit"),
)
"""Fields that all arms have alike, since they select the images or what is measured on them."""

Exclusion = Mapping[str, list[Any]]
"""Combinations to leave out: those that have one of its values on each of its fields."""


class Grid(BaseModel, frozen=True, extra="forbid"):
    """A grid of a study.

    Args:
        axes: values of each axis of the study in this grid, ``seed`` included.
        zipped: groups of axes whose values pair up in order; only these may have a value twice.
        exclude: combinations left out, each by the values of some axes: those with one of its values on all of them.
    """

    axes: dict[str, list[Any]]
    zipped: tuple[tuple[str, ...], ...] = ()
    exclude: tuple[dict[str, list[Any]], ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Grid:
        for name, values in self.axes.items():
            distinct = list(dict.fromkeys(values)) if self._is_zipped(name) else values
            if check_values(name, distinct) != distinct:
                raise ValueError(f"a grid has values of {name} of a wrong type")
        check_zipped(self.axes, self.zipped)
        for entry in self.exclude:
            if not entry or "seed" in entry or not entry.keys() <= self.axes.keys():
                raise ValueError(f"a grid excludes {exclusion_text(entry)}, which is no combination of its axes")
        return self

    @property
    def num_cells(self) -> int:
        """Number of combinations, including those left out."""
        return num_combinations(self.axes, self.zipped)

    @property
    def _groups(self) -> list[tuple[str, ...]]:
        """Fields that vary together, in the order of the axes; most are alone."""
        return groups_of(self.axes, self.zipped)

    @cached_property
    def _pairings(self) -> dict[tuple[str, ...], set[tuple[Any, ...]]]:
        """Values of zipped fields that go together."""
        return {group: set(zip(*(self.axes[name] for name in group), strict=True)) for group in self.zipped}

    @cached_property
    def _excluded(self) -> dict[str, dict[Any, list[dict[str, frozenset[Any]]]]]:
        """Combinations left out, by the values of the one of their fields that has the fewest."""
        found: dict[str, dict[Any, list[dict[str, frozenset[Any]]]]] = {}
        for entry in self.exclude:
            field = min(entry, key=lambda name: len(entry[name]))
            for value in entry[field]:
                own = {name: frozenset(out) for name, out in entry.items()}
                found.setdefault(field, {}).setdefault(value, []).append(own)
        return found

    def _is_zipped(self, name: str) -> bool:
        return any(name in group for group in self.zipped)

    def partners(self, name: str) -> list[str]:
        """Return the axes that are zipped with an axis, without itself."""
        return [each for group in self.zipped if name in group for each in group if each != name]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the values of every axis but ``seed`` for each combination, in the order of the product."""
        return (row for row in self.whole_rows() if not self.excludes(row))

    def whole_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows with those that are left out."""
        groups = [group for group in self._groups if group != ("seed",)]
        columns = [list(zip(*(self.axes[name] for name in group), strict=True)) for group in groups]
        for picked in itertools.product(*columns):
            yield {
                name: value
                for group, values in zip(groups, picked, strict=True)
                for name, value in zip(group, values, strict=True)
            }

    def excludes(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a combination is left out."""
        return any(
            is_excluded(values, entry)
            for field, by_value in self._excluded.items()
            for entry in by_value.get(values[field], ())
        )

    def has(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a combination is in the grid."""
        if not all(values[name] in own for name, own in self.axes.items()) or self.excludes(values):
            return False
        return all(tuple(values[name] for name in group) in known for group, known in self._pairings.items())


@dataclass(frozen=True, kw_only=True)
class GridRequest:
    """A grid as it is asked for.

    Args:
        asked: values of the fields that the grid gives; those of the study hold for the others.
        zipped: groups of fields whose values pair up in order.
        exclude: combinations left out.
    """

    asked: Mapping[str, list[Any]] = field(default_factory=dict)
    zipped: tuple[tuple[str, ...], ...] = ()
    exclude: tuple[Exclusion, ...] = ()


def groups_of(fields: Iterable[str], zipped: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the fields that vary together, in the order of the fields; most are alone.

    >>> groups_of(["model", "norm", "lr"], [("model", "lr")])
    [('model', 'lr'), ('norm',)]
    """
    groups = {name: group for group in zipped for name in group}
    return list(dict.fromkeys(groups.get(name, (name,)) for name in fields))


def num_combinations(axes: Mapping[str, Sequence[Any]], zipped: Iterable[tuple[str, ...]]) -> int:
    """Count the combinations of a grid, including those left out."""
    return math.prod(len(axes[group[0]]) for group in groups_of(axes, zipped))


def check_zipped(axes: Mapping[str, Sequence[Any]], zipped: Collection[Sequence[str]]) -> None:
    """Check that zipped fields have equally many values, and that each is zipped once.

    Raises:
        ValueError: they have not, or a field is no axis.
    """
    every = [name for group in zipped for name in group]
    for group in zipped:
        if len(group) < 2:
            raise ValueError(f"zip {','.join(group)}: give two fields or more, with commas between them")
        if "seed" in group:
            raise ValueError(f"zip {','.join(group)}: seeds are replicates, and every combination has all of them")
        for name in group:
            if every.count(name) > 1:
                raise ValueError(f"zip: {name} is zipped twice; give each field in one group")
            if name not in axes:
                raise ValueError(f"zip {','.join(group)}: give the values of {name}")
        counts = {name: len(axes[name]) for name in group}
        if len(set(counts.values())) > 1:
            each = ", ".join(f"{name} has {plural(count, 'value')}" for name, count in counts.items())
            raise ValueError(f"zip {','.join(group)}: {each}; values pair up in order, so give equally many")
        seen = set[tuple[Any, ...]]()
        for row in zip(*(axes[name] for name in group), strict=True):
            if row in seen:
                twice = ", ".join(f"{name}={value_name(value)}" for name, value in zip(group, row, strict=True))
                raise ValueError(f"zip {','.join(group)}: {twice} is given twice")
            seen.add(row)


def is_excluded(values: Mapping[str, Any], entry: Mapping[str, Collection[Any]]) -> bool:
    """Tell whether a combination is one of those that an entry leaves out.

    >>> is_excluded({"norm": "l2", "lr": 0.1, "depth": 2}, {"norm": ["l2"], "lr": [0.1, 0.3]})
    True
    """
    return all(values[name] in out for name, out in entry.items())


def exclusion_text(entry: Exclusion) -> str:
    """Write a combination that is left out.

    >>> exclusion_text({"norm": ["softmax"], "lr": [0.01, 0.03]})
    'norm=softmax with lr=0.01,0.03'
    """
    return " with ".join(f"{name}={','.join(map(value_name, values))}" for name, values in entry.items())


def united_axes(grids: Sequence[Grid]) -> dict[str, list[Any]]:
    """Return all values that grids over the same axes have of each."""
    return {name: list(dict.fromkeys(value for grid in grids for value in grid.axes[name])) for name in grids[0].axes}


def unless_product(grids: Sequence[Grid]) -> tuple[Grid, ...]:
    """Return the grids as a study holds them: none if they are one product of its axes."""
    is_product = len(grids) == 1 and not grids[0].zipped and not grids[0].exclude
    return () if is_product else tuple(grids)


def check_grids(grids: Sequence[Grid]) -> None:
    """Reject grids with too many cells together, before any is expanded.

    Raises:
        UsageError: there are more than the limit.
    """
    if len(grids) == 1:
        check_num_cells({group[0]: len(grids[0].axes[group[0]]) for group in groups_of(grids[0].axes, grids[0].zipped)})
    check_num_cells({"all grids": sum(grid.num_cells for grid in grids)})


def grid_text(grid: Grid) -> str:
    """Describe a grid: its axes, values that pair up in brackets, and what is left out.

    >>> axes = {"norm": ["xnorm", "l2"], "depth": [1, 2], "lr": [0.1, 0.2], "seed": [0, 1]}
    >>> grid_text(Grid(axes=axes, zipped=(("depth", "lr"),), exclude=({"norm": ["l2"], "depth": [2]},)))
    'norm=xnorm,l2; depth,lr=(1,0.1),(2,0.2); seeds 0-1; without norm=l2 with depth=2'
    """
    parts = []
    for group in groups_of(grid.axes, grid.zipped):
        rows = [tuple(map(value_name, row)) for row in zip(*(grid.axes[name] for name in group), strict=True)]
        written = ",".join(row[0] if len(group) == 1 else f"({','.join(row)})" for row in rows)
        parts.append(
            f"{','.join(group)}={written}" if group != ("seed",) else f"seeds {seed_ranges(grid.axes['seed'])}"
        )
    return "; ".join([*parts, *(f"without {exclusion_text(entry)}" for entry in grid.exclude)])
