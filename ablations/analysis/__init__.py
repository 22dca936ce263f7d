"""Statistics from DataFrames: intervals, paired tests and the tables of a study. Pure functions."""

from ablations.analysis.agreement import agreement
from ablations.analysis.comparisons import MARGIN_PCT, Comparison, compare, differences, paired, with_reference
from ablations.analysis.coverage import coverage
from ablations.analysis.frontier import failure_map, frontier_change, frontier_table, frontiers, settings_of
from ablations.analysis.inference import (
    ALPHA,
    MOST_EXACT,
    binomial_p,
    correlation_interval,
    equivalence_p,
    holm,
    one_sided_p,
    sign_flip_one_sided_p,
    sign_flip_p,
    t_interval,
    welch_interval,
    wilson_interval,
)
from ablations.analysis.pairs import CHANCE_KINDS, pairing_gain, pairing_held, pairs_with
from ablations.analysis.power import (
    MOST_SEEDS,
    Detectable,
    can_decide,
    detectable_difference,
    power_table,
    seeds_for,
    seeds_needed,
    smallest_one_sided_p,
    smallest_p,
    t_detectable_difference,
)
from ablations.analysis.scaling import LINEAR, cost_exponents
from ablations.analysis.table import summarise
from ablations.analysis.tuning import STABLE_OVER, confirmed, expected_best, profile, stable_range, tuned, winners
