"""Results of one or several studies: their frames and every statistic computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from ablations import analysis
from ablations.analysis.claim_tests import Case
from ablations.analysis.claims import judge
from ablations.analysis.contrasts import contrasts_of
from ablations.config import Study, UsageError
from ablations.config.cell import FIELDS
from ablations.config.claim import TRIAL_KINDS, Claim
from ablations.store.frames import Frames

FRAMES = ("cells", "curves", "probes", "steps", "correct", "precision", "examples", "costs", "missing")


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """One study of a report.

    Args:
        folder: the study's folder.
        frames: contents of the folder.
        caveats: sentences to show with its arms.
        trials: frames of its tuning (its own, if the study is a tuning); None without a tuning.
    """

    folder: Path
    frames: Frames
    caveats: tuple[str, ...]
    trials: Frames | None = None

    @property
    def study(self) -> Study:
        """Definition of the study."""
        return self.frames.study


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
            frames = [_as_stratum(frame, study.name) for frame, study in zip(frames, self.studies, strict=True)]
            frames = _with_common_order(frames, self.studies)
        joined = {name: _join([getattr(frame, name) for frame in frames]) for name in FRAMES}
        self.cells, self.curves, self.probes = joined["cells"], joined["curves"], joined["probes"]
        self.steps = joined["steps"]
        self.correct, self.costs, self.missing = joined["correct"], joined["costs"], joined["missing"]
        self.precision, self.examples = joined["precision"], joined["examples"]
        self.problems = tuple(problem for frame in frames for problem in frame.problems)
        self.problems += tuple(problem for stratum in strata for problem in _problems_of_trials(stratum))
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
                condition = {"condition": _in_stratum(stratum.study.name, "")} if len(self.strata) > 1 else {}
                found.append(_with_places(trials.cells.assign(**condition), trials.study))
        return _join(found) if found else self.cells.iloc[:0]

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
                    cells=self.of_study(self.cells, study),
                    costs=self.of_study(self.costs, study),
                    trials=self.of_study(self.trials, study),
                    sampler=None if study.search is None else study.search.sampler,
                    num_waiting=len(study.claims) - len(self._decidable(study)),
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
        return names if len(self.studies) == 1 else [_in_stratum(study.name, condition) for condition in names]

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


def _problems_of_trials(stratum: Stratum) -> list[str]:
    """List the unreadable and the unfinished trials of a study's tuning."""
    trials = stratum.trials
    if trials is None or trials is stratum.frames:
        return []
    unread = [f"{trials.study.name}: {problem}" for problem in trials.problems]
    missing = f"{trials.study.name}: trials without an outcome: {len(trials.missing)}"
    return [*unread, *([missing] if len(trials.missing) else [])]


def _with_places(cells: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Add the position of each searched value in its range, in [0, 1]."""
    assert study.search is not None, "trials need a search"
    places = {f"{each.field}_place": cells[each.field].astype(float).map(each.position) for each in study.search.ranges}
    return cells.assign(**places)


def _join(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the frames that have rows; if none has, return the first for its columns."""
    some = [frame for frame in frames if len(frame)]
    return pd.concat(some, ignore_index=True) if some else frames[0]


def _in_stratum(name: str, condition: str) -> str:
    return f"study={name}, {condition}".removesuffix(", ")


def _as_stratum(frames: Frames, name: str) -> Frames:
    """Prefix the study's name to its conditions and problems."""
    changed = {}
    for field in FRAMES:
        frame = getattr(frames, field)
        named = [_in_stratum(name, condition) for condition in frame["condition"]]
        changed[field] = frame.assign(condition=pd.Series(named, index=frame.index, dtype=str))
    problems = tuple(f"{name}: {problem}" for problem in frames.problems)
    return replace(frames, **changed, problems=problems)


def _with_common_order(frames: list[Frames], studies: Sequence[Study]) -> list[Frames]:
    """Give arms one order in all studies; normalisers keep their registry order."""
    if studies[0].compare == "norm":
        return frames
    arms = list(dict.fromkeys(arm for study in studies for arm in study.arm_names))
    changed = []
    for frame in frames:
        parts = {field: getattr(frame, field) for field in FRAMES if "arm_order" in getattr(frame, field)}
        ordered = {field: part.assign(arm_order=part["arm"].map(arms.index)) for field, part in parts.items()}
        changed.append(replace(frame, **ordered))
    return changed
