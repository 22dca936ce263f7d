"""UFO-ViT with a choice of attention normalisers."""

from ufo.model import SIZES, UFOViT, build
from ufo.norms import CONTRASTS, NORMS, AttentionNorm, register

__all__ = ["CONTRASTS", "NORMS", "SIZES", "AttentionNorm", "UFOViT", "build", "register"]
