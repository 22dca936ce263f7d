"""How often verdicts on claims are false, in simulated studies through the functions that judge real ones.

    .venv/bin/python tests/claim_rates.py [STUDIES]

Each study has five arms and eight seeds, and differences of known truth. A verdict is false that supports a claim which
is not true or contradicts one which is; at the very margin of a claim either is. docs/statistics.md has the rates.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablations.analysis.claim_case import Case, Verdict
from ablations.analysis.claim_tests import examine
from ablations.analysis.family import decide
from ablations.config.claim import ACROSS, Claim

ARMS, NUM_SEEDS, NUM_STUDIES = ("ref", "a", "b", "c", "d"), 8, 2000
SD = 0.7
"""Standard deviation of a score, in points; that of a difference is 1."""

NOISE: dict[str, Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.float64]]] = {
    "normal": lambda rng, shape: rng.normal(0, SD, shape),
    "rounded to 1/360": lambda rng, shape: np.round(rng.normal(0, SD, shape) * 3.6) / 3.6,
    "skewed": lambda rng, shape: SD * (rng.exponential(1, shape) - 1) * np.array([0, *[math.sqrt(2)] * 4])[:, None],
}
"""Name to a function that draws scores around an arm's mean, (arms, seeds); skewed: the reference has no spread."""

NO_COSTS = pd.DataFrame(columns=["condition", "arm", "quantity", "tokens", "round", "value"])


@dataclass(frozen=True)
class Setting:
    """A kind of study.

    Args:
        claims: each claim, with the verdicts on it that are false.
        means: points of the arms other than the reference, which has 0.
        diverges: probability that a cell of the last arm does not learn, which leaves its score as it is.
        noise: one of `NOISE`.
        matched: points of the arms other than the reference at the matched scale; ``means`` are those at their own.
        frontiers: mean and standard deviation of the log10 of each arm's largest learning rate that trains; with them
            a study has the learning rates of `RATES`.
    """

    claims: Sequence[tuple[Claim, tuple[Verdict, ...]]]
    means: Sequence[float] = field(default=(0, 0, 0, 0))
    diverges: float = 0.0
    noise: str = "normal"
    matched: Sequence[float] = ()
    frontiers: Sequence[tuple[float, float]] = ()


RATES = np.log10([3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])

BOTH: tuple[Verdict, ...] = ("supported", "contradicted")
WORSE = [Claim(kind="worse_by", arm=arm, than="ref", margin_pct=1) for arm in ARMS[1:]]
SAME = [Claim(kind="equivalent_within", arm=arm, than="ref", margin_pct=1) for arm in ARMS[1:]]
BETTER = [Claim(kind="greater_than", arm=arm, than="ref") for arm in ARMS[1:]]
FAILS = [Claim(kind="fails_to_train", arm=arm) for arm in ARMS[1:]]
BEST = Claim(kind="better_than_every_other", arm="ref")
STABLE = [Claim(kind="less_stable_than", arm=arm, than="ref") for arm in ARMS[1:]]
SCALED = [Claim(kind="explained_by_scale", arm=arm, than="ref", margin_pct=1) for arm in ARMS[1:]]

AT_MARGIN = [(claim, BOTH) for claim in WORSE]
SETTINGS = {
    "4 worse by 1, at the margin": Setting(AT_MARGIN, [-1] * 4),
    "the same, scores rounded to 1/360": Setting(AT_MARGIN, [-1] * 4, noise="rounded to 1/360"),
    "the same, skewed (exponential)": Setting(AT_MARGIN, [-1] * 4, noise="skewed"),
    "4 equivalent within 1, at the margin": Setting([(claim, BOTH) for claim in SAME], [1, -1, 1, -1]),
    "null: 4 better, 1 better than every other": Setting([*((claim, BOTH) for claim in BETTER), (BEST, BOTH)]),
    "null: 4 worse by 1, 4 equivalent within 1": Setting(
        [*((claim, ("supported",)) for claim in WORSE), *((claim, ("contradicted",)) for claim in SAME)]
    ),
    "mixed: 2 true, 2 at the margin, 2 false": Setting(
        [
            (WORSE[0], ("contradicted",)),
            (SAME[3], ("contradicted",)),
            (WORSE[1], BOTH),
            (SAME[2], BOTH),
            (SAME[0], ("supported",)),
            (BETTER[0], ("supported",)),
        ],
        [-4, -1, 1, 0],
    ),
    "every kind: 1 true, 5 at the margin, 1 false": Setting(
        [
            (WORSE[0], ("contradicted",)),
            (WORSE[1], BOTH),
            (SAME[1], BOTH),
            (BETTER[2], BOTH),
            (BETTER[3], BOTH),
            (FAILS[3], BOTH),
            (BEST, ("supported",)),
        ],
        [-4, -1, 0, 0],
        diverges=0.5,
    ),
    "null: 4 less stable": Setting([(claim, BOTH) for claim in STABLE], frontiers=[(-2.0, 0.4)] * 5),
    "the same, frontiers of other spread at the largest rate": Setting(
        [(claim, BOTH) for claim in STABLE], frontiers=[(-0.9, 0.1), *[(-0.9, 0.6)] * 4]
    ),
    "4 explained by scale within 1, 2 at each margin": Setting(
        [(claim, BOTH) for claim in SCALED], [-1, -1, -4, -4], matched=[0, 0, 1, -1]
    ),
}
"""Name to a setting."""


def draw(setting: Setting, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the cells of a study."""
    if setting.frontiers:
        return draw_frontiers(setting, rng)
    if setting.matched:
        scales = {"own": setting.means, "matched": setting.matched}
        return pd.concat(
            [
                draw_scores(setting, means, rng).assign(condition=f"scale={name}", scale=name)
                for name, means in scales.items()
            ],
            ignore_index=True,
        )
    return draw_scores(setting, setting.means, rng)


def draw_frontiers(setting: Setting, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the cells of a study with several learning rates: each seed of an arm trains up to a rate of its own."""
    means, sds = np.array(setting.frontiers)[:, :, None].swapaxes(0, 1)
    tops = (means + sds * rng.normal(0, 1, (len(ARMS), NUM_SEEDS))).ravel()
    cells = pd.DataFrame({"arm": np.repeat(ARMS, NUM_SEEDS), "seed": [*range(NUM_SEEDS)] * len(ARMS)})
    cells = cells.assign(arm_label=cells["arm"], arm_order=np.repeat(range(len(ARMS)), NUM_SEEDS), stale=False)
    frames = []
    for lr in 10**RATES:
        learns = np.log10(lr) <= tops
        outcomes = {"outcome": np.where(learns, "ok", "diverged"), "kind": np.where(learns, "", "no_learning")}
        frames.append(cells.assign(condition=f"lr={lr}", lr=lr, score_pct=np.where(learns, 90.0, 10.0), **outcomes))
    return pd.concat(frames, ignore_index=True)


def draw_scores(setting: Setting, means: Sequence[float], rng: np.random.Generator) -> pd.DataFrame:
    """Draw the cells of a condition whose arms have the given means."""
    scores = np.array([0, *means])[:, None] + NOISE[setting.noise](rng, (len(ARMS), NUM_SEEDS)) + 90
    cells = pd.DataFrame({"arm": np.repeat(ARMS, NUM_SEEDS), "seed": [*range(NUM_SEEDS)] * len(ARMS)})
    stuck = (rng.random(len(cells)) < setting.diverges) & (cells["arm"] == ARMS[-1])
    cells = cells.assign(condition="", score_pct=scores.ravel(), outcome=np.where(stuck, "diverged", "ok"), stale=False)
    return cells.assign(kind=np.where(stuck, "no_learning", ""))


def is_false(setting: Setting, rng: np.random.Generator) -> dict[str, bool]:
    """Judge one study; return whether it has a false verdict of either direction, within the family and alone."""
    claims = [claim for claim, _ in setting.claims]
    cells = draw(setting, rng)
    conditions = list(cells["condition"].unique())
    settings = {claim.statement: {"": conditions} for claim in claims if claim.kind in ACROSS}
    case = Case(claims=claims, arms=ARMS, conditions=conditions, settings=settings, cells=cells, costs=NO_COSTS)
    decided = list(
        zip(decide([examine(c, "", case) for c in claims]), (false for _, false in setting.claims), strict=True)
    )
    return {
        f"{scope} {verdict}": any(getattr(one, scope) == verdict and verdict in false for one, false in decided)
        for scope in ("verdict", "alone")
        for verdict in BOTH
    }


def false_rates(name: str, *, num_studies: int, seed: int = 0) -> pd.Series:
    """Return the shares of studies with a false verdict, by scope and direction, as `is_false` names them.

    Args:
        name: one of `SETTINGS`.
        num_studies: number of simulated studies.
        seed: simulation seed.
    """
    rng = np.random.default_rng(seed)
    return pd.DataFrame([is_false(SETTINGS[name], rng) for _ in range(num_studies)]).mean()


def main(num_studies: int) -> None:
    """Print the rates of every setting, in percent with their standard errors, as a table in Markdown."""
    print("| claims | false supported | false contradicted | alone: supported | alone: contradicted |")
    print("| --- | --- | --- | --- | --- |")
    for name in SETTINGS:
        rates = false_rates(name, num_studies=num_studies)
        errors = np.sqrt(rates * (1 - rates) / num_studies)
        shares = [f"{100 * rate:.1f} ± {100 * error:.1f} %" for rate, error in zip(rates, errors, strict=True)]
        print(f"| {name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_STUDIES)
