"""Numbers from DataFrames: intervals, paired tests, and the table that a study ends with."""

from ablations.stats.inference import (
    ALPHA,
    can_decide,
    detectable_difference,
    holm,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    t_interval,
    wilson_interval,
)
from ablations.stats.table import CHANCE_KINDS, pairing_held, summarise

__all__ = [
    "ALPHA",
    "CHANCE_KINDS",
    "can_decide",
    "detectable_difference",
    "holm",
    "pairing_held",
    "seeds_needed",
    "sign_flip_p",
    "smallest_p",
    "summarise",
    "t_interval",
    "wilson_interval",
]
