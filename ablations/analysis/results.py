"""Results of one or several studies: their frames and every statistic computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pandas as pd

from ablations import analysis
from ablations.analysis.claim_case import Case
from ablations.analysis.claims import judge
from ablations.analysis.contrasts import contrasts_of
from ablations.analysis.strata import (
    FRAMES,
    Stratum,
    as_stratum,
    in_stratum,
    join,
    problems_of_trials,
    with_common_order,
    with_places,
)
from ablations.config import Study, UsageError
from ablations.config.cell import FIELDS
from ablations.config.claim import ACROSS, TRIAL_KINDS, Claim
from ablations.config.settings import settings_of


class Results:
    """Results of one study, or of several as strata, which are never pooled.

    Args:
        strata: the studies, all with the same compared field.
        reference: the reference arm; None for the studies' own.

    Raises:
        UsageError: the studies differ in the compared field, the reference, the task or the metric, or share a name;
            the reference is not an arm; or a tuning is combined with another kind of study.
    """

    def __init__(self, strata: Sequence[Stratum], *, reference: str | None = None) -> None:
        self.strata = tuple(strata)
        self.studies = tuple(stratum.study for stratum in strata)
        self.reference = self._choose_reference(reference)
        frames = [stratum.frames for stratum in strata]
        if len(strata) > 1:
            frames = [as_stratum(frame, study.name) for frame, study in zip(frames, self.studies, strict=True)]
            frames = with_common_order(frames, self.studies)
        joined = {name: join([getattr(frame, name) for frame in frames]) for name in FRAMES}
        self.cells, self.curves, self.probes = joined["cells"], joined["curves"], joined["probes"]
        self.steps = joined["steps"]
        self.correct, self.costs, self.missing = joined["correct"], joined["costs"], joined["missing"]
        self.precision, self.examples = joined["precision"], joined["examples"]
        self.problems = tuple(problem for frame in frames for problem in frame.problems)
        self.problems += tuple(problem for stratum in strata for problem in problems_of_trials(stratum))
        self.caveats = tuple(dict.fromkeys(caveat for stratum in strata for caveat in stratum.caveats))

    @property
    def name(self) -> str:
        """Names of the studies, joined."""
        return " + ".join(study.name for study in self.studies)

    @property
    def compare(self) -> str:
        """The compared field: its values are the arms."""
        return self.studies[0].compare

    @property
    def measure(self) -> str:
        """Metric that runs are compared by: accuracy, or the average precision of masks or of boxes."""
        return self.studies[0].metric.name

    @property
    def is_tuning(self) -> bool:
        """Whether the cells are trials, whose seeds are not replicates: only the statistics of trials apply then."""
        return self.studies[0].is_tuning

    @property
    def searched(self) -> list[str]:
        """Searched fields, in the order of a cell's fields; empty without a tuning."""
        fields = {field for study in self.studies for field in study.searched}
        return [field for field in FIELDS if field in fields]

    @property
    def has_drawn_points(self) -> bool:
        """Whether points are independent of earlier results, as the expected best of k trials requires."""
        return all(study.search is None or study.search.sampler == "sobol" for study in self.studies)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every finished trial, as `ablations.analysis.tuned` takes them; no row without a tuning."""
        found = []
        for stratum in self.strata:
            if (trials := stratum.trials) is not None:
                condition = {"condition": in_stratum(stratum.study.name, "")} if len(self.strata) > 1 else {}
                found.append(with_places(trials.cells.assign(**condition), trials.study))
        return join(found) if found else self.cells.iloc[:0]

    @cached_property
    def tuned(self) -> pd.DataFrame:
        """Summary of each arm's trials, from `analysis.tuned`, with the winner's own seeds (`analysis.confirmed`)."""
        table = analysis.tuned(self.trials, self.searched)
        if not self.has_drawn_points:
            table = table.assign(expected_half_pct=float("nan"))
        if self.is_tuning:
            return table.assign(confirmed_pct=float("nan"), is_short=False)
        parts = [analysis.confirmed(self.of_study(table, s), self.of_study(self.cells, s)) for s in self.studies]
        return pd.concat(parts, ignore_index=True)

    @property
    def conditions(self) -> list[str]:
        """Every condition with a finished cell, in order; a single condition has an empty name."""
        return list(self.cells["condition"].unique())

    @cached_property
    def table(self) -> pd.DataFrame:
        """Main table, from `ablations.analysis.summarise`."""
        return analysis.summarise(self.cells, self.reference)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """The registry's contrasts between these arms, as from `analysis.compare`, with a column `isolates`."""
        table = analysis.compare(self.cells, list(self._isolates))
        factors = {comparison.name: factor for comparison, factor in self._isolates.items()}
        return table.assign(isolates=table["comparison"].map(factors))

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Verdicts on the studies' claims, from `ablations.analysis.claims.judge`."""
        return judge(
            [
                Case(
                    claims=self._decidable(study),
                    arms=study.arm_names,
                    conditions=self._conditions_of(study),
                    asked=self._arms_asked(study),
                    settings=self._settings_of(study),
                    cells=self.of_study(self.cells, study),
                    costs=self.of_study(self.costs, study),
                    trials=self.of_study(self.trials, study),
                    sampler=None if study.search is None else study.search.sampler,
                    num_waiting=len(study.claims) - len(self._decidable(study)),
                    name=in_stratum(study.name, "") if len(self.studies) > 1 else "",
                )
                for study in self.studies
            ]
        )

    @staticmethod
    def _decidable(study: Study) -> list[Claim]:
        """Return the claims that a study decides: of a tuning only those about its trials, others need the winners."""
        return [claim for claim in study.claims if not study.is_tuning or claim.kind in TRIAL_KINDS]

    @cached_property
    def pairing(self) -> pd.DataFrame:
        """Counts of pairs that share weights, split and batches, and the benefit of pairing, per arm and condition."""
        held = analysis.pairing_held(self.cells, self.reference)
        gain = analysis.pairing_gain(self.cells, self.reference)
        gain = gain.rename(columns={"num_pairs": "num_pairs_without_chance"})
        return held.merge(gain, on=["condition", "arm"], how="left")

    @cached_property
    def failure_map(self) -> pd.DataFrame:
        """Share of cells that learn, and their training loss, per condition and arm (`analysis.failure_map`)."""
        return analysis.failure_map(self.cells, self.curves, missing=self.missing)

    @cached_property
    def frontier(self) -> pd.DataFrame:
        """Largest learning rate at which each arm learns, from `analysis.frontier_table`; empty without that axis."""
        return analysis.frontier_table(self.cells, self.reference, missing=self.missing)

    @cached_property
    def frontier_depth(self) -> pd.DataFrame:
        """Change of the frontier per doubling of the depth, from `analysis.frontier_change`."""
        return analysis.frontier_change(self.cells)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Share of test images on which two runs differ, from `ablations.analysis.agreement`."""
        return analysis.agreement(self.correct)

    def of_study(self, frame: pd.DataFrame, study: Study) -> pd.DataFrame:
        """Return one study's rows of a frame with conditions."""
        if len(self.studies) == 1:
            return frame
        condition = frame["condition"].astype(str)
        return frame[(condition == f"study={study.name}") | condition.str.startswith(f"study={study.name}, ")]

    def _conditions_of(self, study: Study) -> list[str]:
        """Return the names of a study's conditions, including those without a cell."""
        names = study.condition_names
        return names if len(self.studies) == 1 else [in_stratum(study.name, condition) for condition in names]

    def _settings_of(self, study: Study) -> dict[str, dict[str, list[str]]]:
        """Return the settings of claims that are not judged in every condition with their arms, by statement."""

        def named(names: Sequence[str]) -> list[str]:
            return [in_stratum(study.name, name) for name in names] if len(self.studies) > 1 else list(names)

        own = {c.statement: settings_of(study, c) for c in study.claims if c.at or c.kind in ACROSS}
        return {
            statement: dict(zip(named(list(found)), map(named, found.values()), strict=True))
            for statement, found in own.items()
        }

    def arm_text(self, arm: object) -> str:
        """Write an arm for a table: its name, with the values that are zipped with it."""
        tied = [texts[str(arm)] for texts in self._tied_texts if str(arm) in texts]
        return f"{arm} ({'; '.join(dict.fromkeys(tied))})" if tied else str(arm)

    @cached_property
    def _tied_texts(self) -> list[dict[str, str]]:
        return [study.tied_texts for study in self.studies]

    @property
    def arms_asked(self) -> dict[str, list[str]]:
        """Arms of each condition that were asked for, with or without a cell."""
        return {name: arms for study in self.studies for name, arms in self._arms_asked(study).items()}

    def _arms_asked(self, study: Study) -> dict[str, list[str]]:
        return dict(zip(self._conditions_of(study), study.arms_by_condition.values(), strict=True))

    def power(self, delta_pct: float) -> pd.DataFrame:
        """Return the seeds that a margin needs and the difference that the present seeds detect, per comparison.

        Args:
            delta_pct: margin, in points, > 0.
        """
        comparisons = analysis.with_reference(self.cells, self.reference)
        compared, paired = analysis.compare(self.cells, comparisons), analysis.differences(self.cells, comparisons)
        return analysis.power_table(compared, paired, delta_pct)

    def summary(self) -> pd.DataFrame:
        """Return the main table: one row per condition and arm."""
        return self.table

    def paired(self, ref: str | None = None) -> pd.DataFrame:
        """Return the differences to a reference per seed, each with the test of its comparison.

        Args:
            ref: the reference arm; None for the study's own.

        Raises:
            UsageError: the reference is not an arm.
        """
        reference = self.reference if ref is None else self._choose_reference(ref)
        rows = analysis.paired(self.cells, analysis.with_reference(self.cells, reference))
        labels = dict(zip(self.cells["arm"], self.cells["arm_label"], strict=True))
        arms = [name.removesuffix(f" - {reference}") for name in rows["comparison"]]
        return rows.assign(measure=self.measure, arm=arms, label=[labels[arm] for arm in arms])

    @property
    def contrast_pairs(self) -> pd.DataFrame:
        """Contrasts per seed, in the form of `paired`."""
        isolates = {comparison.name: what for comparison, what in self._isolates.items()}
        rows = analysis.paired(self.cells, list(self._isolates))
        return rows.assign(measure=self.measure, label=[f"{name}\n{isolates[name]}" for name in rows["comparison"]])

    @property
    def _isolates(self) -> dict[analysis.Comparison, str]:
        return contrasts_of(self.compare, self.cells["arm"])

    def _choose_reference(self, asked: str | None) -> str | None:
        fields = sorted({study.compare for study in self.studies})
        if len(fields) > 1:
            raise UsageError(f"these studies compare different fields: {', '.join(fields)}; report them one by one")
        names = [study.name for study in self.studies]
        if len(set(names)) < len(names):
            same = f"two of these studies have the same name: {', '.join(names)}"
            raise UsageError(f"{same}; change `name` in one study.yaml")
        if len({study.task for study in self.studies}) > 1:
            raise UsageError("classification and detection have different metrics; report these studies one by one")
        if len(metrics := dict.fromkeys(study.metric.name for study in self.studies)) > 1:
            raise UsageError(f"{' and '.join(metrics)} are different metrics; report these studies one by one")
        if len({study.is_tuning for study in self.studies}) > 1:
            raise UsageError("a tuning is reported by itself; the report of its winners includes its trials")
        arms = list(dict.fromkeys(arm for study in self.studies for arm in study.arm_names))
        if asked is not None:
            if asked not in arms:
                raise UsageError(f"unknown arm '{asked}'. Valid: {', '.join(arms)}")
            return asked
        references = sorted({study.ref for study in self.studies if study.ref is not None})
        if len(references) > 1:
            raise UsageError(f"these studies have different references: {', '.join(references)}; choose one with --ref")
        return references[0] if references else None
