"""The moving average of a net's weights, which is evaluated in their place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of weights and of BatchNorm's means and variances.

    Its decay rises with the number u of updates, min(decay, (1 + u) / (10 + u)), as TensorFlow's
    ExponentialMovingAverage has it: else a short training would be judged by its first weights.

    Args:
        net: whose weights are followed.
        decay: in the long run, below 1.

    Attributes:
        net: the same net with the averages, in evaluation mode for good.
    """

    def __init__(self, net: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.net = copy.deepcopy(net).requires_grad_(False).eval()

    def restart(self, net: nn.Module) -> None:
        """Begin with a net's present weights, and with buffers that it has got since."""
        for own, other in zip(self.net.modules(), net.modules(), strict=True):
            for name, buffer in other._buffers.items():
                own._buffers[name] = None if buffer is None else buffer.detach().clone()
        self.net.load_state_dict(net.state_dict())
        self.num_updates = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in a net's weights after a step."""
        self.num_updates += 1
        weight = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        own, other = _floats(self.net), _floats(net)
        torch._foreach_lerp_(own, other, weight)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"net": self.net.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint held."""
        self.net.load_state_dict(state_dict["net"])
        self.num_updates = state_dict["num_updates"]


def _floats(net: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*net.parameters(), *net.buffers()) if tensor.is_floating_point()]
