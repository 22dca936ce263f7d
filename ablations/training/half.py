"""Autocast to float16 with a fused optimiser: a step with gradients that are not finite is skipped on the device.

Lightning's own plugins leave the unscaling of gradients to a fused optimiser, which would come after they are clipped,
so they need one whose step waits for the device to learn whether it is skipped.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from lightning_fabric.plugins.precision import MixedPrecision as FabricMixedPrecision
from pytorch_lightning.plugins.precision import MixedPrecision as TrainerMixedPrecision
from torch.optim import Optimizer

HALF: Final = "16-mixed"


class FabricHalf(FabricMixedPrecision):
    """Plugin of the lean loop.

    Args:
        device: type of the device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(HALF, device)

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        """Unscale the gradients, of a fused optimiser too."""
        assert self.scaler is not None
        self.scaler.unscale_(optimizer)


class TrainerHalf(TrainerMixedPrecision):
    """Plugin of Lightning's Trainer.

    Args:
        device: type of the device.
    """

    def __init__(self, device: str) -> None:
        super().__init__(HALF, device)

    def _after_closure(self, model: Any, optimizer: Any) -> None:
        """Unscale the gradients of a fused optimiser before the hooks that read and clip them."""
        if optimizer.defaults["fused"]:
            assert self.scaler is not None
            self.scaler.unscale_(optimizer)
        super()._after_closure(model, optimizer)


def unscales_fused(plugin: object) -> bool:
    """Return whether gradients reach the hooks unscaled with a fused optimiser: always, except with Lightning's own."""
    return getattr(plugin, "precision", "") != HALF or isinstance(plugin, FabricHalf | TrainerHalf)


def precision_of(name: str, device: torch.device, half: type[FabricHalf] | type[TrainerHalf]) -> dict[str, Any]:
    """Return the argument of a Fabric or a Trainer for a cell's precision.

    Args:
        name: ``precision`` of the cell.
        device: device to train on.
        half: plugin for float16.
    """
    if name == HALF:
        return {"plugins": [half(device.type)]}
    return {"precision": "32-true" if name == "tf32" else name, "plugins": []}  # TF32 is a setting of CUDA
