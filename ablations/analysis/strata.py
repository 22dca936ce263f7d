"""Strata of a report: the frames of several studies, brought together and never pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ablations.config import Study
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


def problems_of_trials(stratum: Stratum) -> list[str]:
    """List the unreadable and the unfinished trials of a study's tuning."""
    trials = stratum.trials
    if trials is None or trials is stratum.frames:
        return []
    unread = [f"{trials.study.name}: {problem}" for problem in trials.problems]
    missing = f"{trials.study.name}: trials without an outcome: {len(trials.missing)}"
    return [*unread, *([missing] if len(trials.missing) else [])]


def with_places(cells: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Add the position of each searched value in its range, in [0, 1]."""
    assert study.search is not None, "trials need a search"
    places = {f"{each.field}_place": cells[each.field].astype(float).map(each.position) for each in study.search.ranges}
    return cells.assign(**places)


def join(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the frames that have rows; if none has, return the first for its columns."""
    some = [frame for frame in frames if len(frame)]
    return pd.concat(some, ignore_index=True) if some else frames[0]


def in_stratum(name: str, condition: str) -> str:
    """Return the name of a study's condition among those of several studies."""
    return f"study={name}, {condition}".removesuffix(", ")


def as_stratum(frames: Frames, name: str) -> Frames:
    """Prefix the study's name to its conditions and problems."""
    changed = {}
    for field in FRAMES:
        frame = getattr(frames, field)
        named = [in_stratum(name, condition) for condition in frame["condition"]]
        changed[field] = frame.assign(condition=pd.Series(named, index=frame.index, dtype=str))
    problems = tuple(f"{name}: {problem}" for problem in frames.problems)
    return replace(frames, **changed, problems=problems)


def with_common_order(frames: list[Frames], studies: Sequence[Study]) -> list[Frames]:
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
