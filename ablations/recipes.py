"""Training recipes: the values of their fields for each kind of data, the optimiser and the learning-rate schedule."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import torch
from torch import nn

RECIPE = {
    "min_lr_share": 0.01,
    "warmup_epochs": 1,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "grad_clip": 1.0,
}
"""Weight decay and label smoothing are DeiT's (arXiv 2012.12877); warm-up and clipping are ours, for short runs."""


def defaults(*, image_side: int, flips: bool) -> dict[str, Any]:
    """Return a value for every field of a cell that a data set decides.

    Args:
        image_side: pixels of the shorter side.
        flips: whether an image mirrored left to right still shows the same class.

    >>> values = defaults(image_side=32, flips=True)
    >>> values["model"], values["patch"], values["augment"]
    ('ufo_vit_nano', 4, 'crop_flip')
    """
    small: dict[str, Any] = {"model": "ufo_vit_pico", "epochs": 8, "batch_size": 64, "lr": 4e-3}
    middle: dict[str, Any] = {"model": "ufo_vit_nano", "epochs": 20, "batch_size": 128, "lr": 3e-3}
    large: dict[str, Any] = {"model": "ufo_vit_s", "epochs": 20, "batch_size": 128, "lr": 1e-3}
    sized = small if image_side <= 16 else middle if image_side <= 96 else large
    return {**RECIPE, **sized, "patch": default_patch(image_side), "augment": "crop_flip" if flips else "shift"}


def default_patch(image_side: int) -> int:
    """Return the power of two that makes about 8 x 8 tokens, from 2 to 16 px.

    >>> [default_patch(side) for side in (8, 32, 64, 224)]
    [2, 4, 8, 16]
    """
    return min(16, max(2, 2 ** int(math.log2(image_side / 8)))) if image_side > 8 else 2


def split_by_decay(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Split a net's parameters, by name, into those that are decayed and those that are exempt.

    Decayed are the weights of linear layers and convolutions. Biases, gains, LayerNorm, BatchNorm, LayerScale, the
    positional table and the class token are exempt, whatever their number of axes; so is what a net's own
    ``no_weight_decay()`` names, as timm's nets have it, by name or pattern.
    """
    named = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    matrices = {
        f"{name}.weight".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        and not any(fnmatch.fnmatch(f"{name}.weight", pattern) for pattern in named)
    }
    parameters = dict(model.named_parameters())
    decayed = {name: parameter for name, parameter in parameters.items() if name in matrices}
    return decayed, {name: parameter for name, parameter in parameters.items() if name not in matrices}


def build_optimizer(model: nn.Module, *, lr: float, weight_decay: float, fused: bool) -> torch.optim.AdamW:
    """Build AdamW (arXiv 1711.05101) with decoupled decay on matrices only.

    Args:
        fused: one kernel for all parameters.
    """
    decayed, exempt = split_by_decay(model)
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": weight_decay},
        {"params": list(exempt.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


def build_schedule(
    optimizer: torch.optim.Optimizer, *, num_steps: int, num_warmup_steps: int, min_share: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build the schedule of `lr_share`, which is stepped after every step of the optimiser."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: lr_share(step, num_steps=num_steps, num_warmup_steps=num_warmup_steps, min_share=min_share),
    )


def lr_share(step: int, *, num_steps: int, num_warmup_steps: int, min_share: float) -> float:
    """Return the learning rate of a step (from 0) as a share of its peak: linear warm-up, then a cosine.

    >>> [round(lr_share(s, num_steps=10, num_warmup_steps=2, min_share=0.0), 3) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return min_share + (1 - min_share) * 0.5 * (1 + math.cos(math.pi * progress))
