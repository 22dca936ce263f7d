"""Optimiser of a cell, and its learning-rate schedule."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

DECAY = 0.1
"""Factor of the learning rate at each step of a stepwise schedule (arXiv 1703.06870)."""


def split_by_decay(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Split a net's parameters, by name, into decayed and exempt ones.

    Weights of linear layers and convolutions are decayed. Biases, gains, LayerNorm, BatchNorm, LayerScale, positional
    tables and class tokens are exempt, whatever their number of axes. So are parameters that ``no_weight_decay()`` of
    the net or of a module in it lists, as in timm, by name or pattern.
    """
    named = [
        f"{prefix}.{pattern}".lstrip(".")
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for pattern in module.no_weight_decay()
    ]
    matrices = {
        f"{name}.weight".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
        and not any(fnmatch.fnmatch(f"{name}.weight", pattern) for pattern in named)
    }
    parameters = dict(model.named_parameters())
    decayed = {name: parameter for name, parameter in parameters.items() if name in matrices}
    return decayed, {name: parameter for name, parameter in parameters.items() if name not in matrices}


def build_optimizer(model: nn.Module, *, lr: float | Tensor, weight_decay: float, fused: bool) -> torch.optim.AdamW:
    """Build AdamW for a net, with decoupled decay on matrices only; arguments as of `build_adamw`."""
    decayed, exempt = split_by_decay(model)
    return build_adamw(decayed.values(), exempt.values(), lr=lr, weight_decay=weight_decay, fused=fused)


def build_adamw(
    decayed: Iterable[Tensor], exempt: Iterable[Tensor], *, lr: float | Tensor, weight_decay: float, fused: bool
) -> torch.optim.AdamW:
    """Build AdamW (arXiv 1711.05101).

    Args:
        decayed: parameters with decoupled decay.
        exempt: parameters without.
        lr: learning rate; a scalar tensor on the device makes the step capturable in a CUDA graph.
        weight_decay: decay of the first.
        fused: whether one kernel updates all parameters.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(decayed), "weight_decay": weight_decay},
        {"params": list(exempt), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=fused, capturable=isinstance(lr, Tensor))


def place_lr(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move learning rates that are tensors to a device: loaded from a checkpoint they are on the CPU.

    A captured step would keep the value of one on the CPU for ever.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].to(device)


def lr_share(
    step: int,
    *,
    num_steps: int,
    num_warmup_steps: int,
    min_share: float,
    warmup_share: float = 0.0,
    decay_steps: Sequence[int] | None = None,
) -> float:
    """Return a step's learning rate as a share of its peak: linear warm-up, then a cosine or stepwise decay.

    Args:
        step: step, from 0.
        num_steps: number of training steps.
        num_warmup_steps: number of warm-up steps.
        min_share: share at the end of the cosine.
        warmup_share: share from which the warm-up rises; its first step is already above.
        decay_steps: steps at which the share falls by `DECAY`; None: a cosine.

    >>> [round(lr_share(s, num_steps=10, num_warmup_steps=2, min_share=0.0), 3) for s in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    >>> falls = {"num_steps": 10, "num_warmup_steps": 2, "min_share": 0.0, "decay_steps": [6, 9]}
    >>> [round(lr_share(s, **falls), 3) for s in (0, 2, 5, 6, 9)]
    [0.5, 1.0, 1.0, 0.1, 0.01]
    """
    if step < num_warmup_steps:
        return warmup_share + (1 - warmup_share) * (step + 1) / num_warmup_steps
    if decay_steps is not None:
        return DECAY ** sum(step >= decayed for decayed in decay_steps)
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return min_share + (1 - min_share) * 0.5 * (1 + math.cos(math.pi * progress))
