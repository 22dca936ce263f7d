"""Names of nets from other libraries, as values of ``model``."""

from __future__ import annotations

TIMM = "timm:"
"""Prefix of the nets in timm's registry."""

TORCHVISION = "torchvision:"
"""Prefix of torchvision's ResNets, which serve only as backbones of detectors."""


def is_timm(model: str) -> bool:
    """Tell whether a model is one of timm's."""
    return model.startswith(TIMM)


def is_foreign(model: str) -> bool:
    """Tell whether a model is another library's.

    >>> is_foreign("timm:xcit_small_12_p16_224"), is_foreign("torchvision:resnet50"), is_foreign("ufo_vit_s")
    (True, True, False)
    """
    return model.startswith((TIMM, TORCHVISION))
