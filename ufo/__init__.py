"""UFO-ViT with a choice of attention normalisers.

Public names are imported on first access, so that the package can be imported without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufo.model import UFOViT, build
    from ufo.norms import CONTRASTS, NORMS, AttentionNorm, register
    from ufo.sizes import SIZES

__all__ = ["CONTRASTS", "NORMS", "SIZES", "AttentionNorm", "UFOViT", "build", "register"]

_HOME = {"UFOViT": "model", "build": "model", "SIZES": "sizes"}
"""Public name to its module; all other names are in norms."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ufo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ufo.{_HOME.get(name, 'norms')}"), name)
