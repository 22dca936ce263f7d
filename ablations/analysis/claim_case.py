"""What the tests of claims take and return: a study's claims with its data, and what these say of one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pandas as pd

from ablations.analysis.claim_power import Power
from ablations.analysis.comparisons import Comparison, differences
from ablations.config.claim import Claim

Verdict = Literal["supported", "contradicted", "undecided"]

TESTED = ["condition", "arm", "seed", "score_pct", "outcome", "kind", "stale"]
"""Columns of cells that claims are tested by."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study's claims and the data to judge them by.

    Args:
        claims: the study's claims.
        arms: all arms of the study, including those without a cell.
        conditions: all conditions of the study, including those without a cell.
        asked: arms of each condition; empty: every condition has all arms.
        settings: conditions in which each claim is judged together, by the claim's statement and the setting's name;
            for a claim without an entry each condition that has its arms is a setting.
        cells: one row per cell, as `ablations.analysis.summarise` takes them.
        costs: measurements of `ablations bench cost`, possibly no row: `condition`, `arm`, `quantity`, `tokens`,
            `round`, `value`.
        trials: the study's tuning trials, one row each; no row without a tuning.
        sampler: sampler of the tuning's points; None without a tuning.
        num_waiting: claims that are of the family and are decided later, by the winners of a tuning.
        name: name of the study as a whole among the conditions of several studies; empty for one.
    """

    claims: Sequence[Claim]
    arms: Sequence[str]
    conditions: Sequence[str]
    cells: pd.DataFrame
    costs: pd.DataFrame
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    sampler: str | None = None
    num_waiting: int = 0
    name: str = ""

    def arms_in(self, condition: str) -> Sequence[str]:
        """Return the arms that a condition has, including those without a cell."""
        return self.asked.get(condition, () if self.asked else self.arms)

    def settings_of(self, claim: Claim) -> list[str]:
        """Return the settings of a claim; if none has its arms, all conditions, or the study for known arms."""
        arms = set(claim.arms)
        if claim.statement in self.settings:
            return list(self.settings[claim.statement]) or [self.name]
        found = [name for name in self.conditions if arms <= set(self.arms_in(name))]
        return found or ([self.name] if arms <= set(self.arms) else list(self.conditions))

    @cached_property
    def cells_by_arm(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Cells by condition and arm, of those that have a cell, with the columns that claims are tested by."""
        found: dict[str, dict[str, pd.DataFrame]] = {}
        for (condition, arm), own in self.cells[TESTED].groupby(["condition", "arm"], sort=False):
            found.setdefault(str(condition), {})[str(arm)] = own
        return found

    @cached_property
    def costs_by_arm(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Measurements by condition and arm, of those that have one."""
        found = self.costs.groupby(["condition", "arm"], sort=False)
        return {(str(condition), str(arm)): own for (condition, arm), own in found}

    def pairs(self, arm: str, other: str, condition: str) -> pd.DataFrame:
        """Return the differences of two arms per seed in a condition; those of all conditions are computed at once."""
        if (arm, other) not in self._pairs:
            found = differences(self.cells[TESTED], [Comparison((arm,), (other,))])
            self._pairs[arm, other] = {str(name): own for name, own in found.groupby("condition", sort=False)}
        return self._pairs[arm, other].get(condition, pd.DataFrame())

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], dict[str, pd.DataFrame]]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the data say about a claim in a condition, before any adjustment.

    Args:
        evidence: the numbers, in words.
        p_for: p of the hypothesis that the claim is false; NaN if it was not tested.
        p_against: p of the hypothesis that the claim is true; NaN if it was not tested.
        least_for: smallest p that the test for the claim can give with as many cells.
        least_against: the same of the test against it.
        known: verdict that follows from facts without error; None if only tests decide.
        in_family_for: whether the study can have a test for the claim, so that it counts in the family.
        in_family_against: whether the study can have a test against it.
        num_pairs: pairs, the fewest of several comparisons.
        power: what the pairs can detect; None without any.
        too_near: what to say of an undecided claim whose pairs are enough.
    """

    evidence: str
    p_for: float = math.nan
    p_against: float = math.nan
    least_for: float = 0.0
    least_against: float = 0.0
    known: Verdict | None = None
    in_family_for: bool = True
    in_family_against: bool = True
    num_pairs: int = 0
    power: Power | None = None
    too_near: str = ""
