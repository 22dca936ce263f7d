"""Tuning: every arm at its own best, on an equal budget."""

from ablations.tune.mirror import JOURNAL, OptunaStudies, Telling
from ablations.tune.trials import confirmation, trial_plans

__all__ = ["JOURNAL", "OptunaStudies", "Telling", "confirmation", "trial_plans"]
