"""Names of torchvision's ResNets, without importing them."""

from __future__ import annotations

from ablations.config import UsageError
from ablations.config.nets import TORCHVISION
from ufo.registry import unknown_name

RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
"""ResNets of torchvision 0.29."""


def check_resnet_name(model: str) -> None:
    """Check the name of a ResNet of torchvision, given with its prefix.

    Raises:
        UsageError: unknown name; the message suggests the nearest.
    """
    name = model.removeprefix(TORCHVISION)
    if name not in RESNETS:
        raise UsageError(str(unknown_name("ResNet of torchvision", name, list(RESNETS))))
