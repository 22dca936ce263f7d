"""Tuning: every arm at its own best, on an equal budget."""

from ablations.tuning.mirror import JOURNAL, OptunaStudies
from ablations.tuning.trials import confirmation, trial_plans

__all__ = ["JOURNAL", "OptunaStudies", "confirmation", "trial_plans"]
