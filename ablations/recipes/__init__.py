"""What a cell is trained with: named recipes, the optimiser and its schedule."""

from ablations.recipes.named import FOR_TASK, RECIPES, defaults, recipe_fields
from ablations.recipes.optimizer import build_optimizer, build_schedule, lr_share, split_by_decay

__all__ = [
    "FOR_TASK",
    "RECIPES",
    "build_optimizer",
    "build_schedule",
    "defaults",
    "lr_share",
    "recipe_fields",
    "split_by_decay",
]
