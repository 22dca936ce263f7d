"""UFO-ViT with a choice of attention normalisers."""

from ufo.model import UFOViT, build
from ufo.norms import CONTRASTS, NORMS, AttentionNorm, register
from ufo.sizes import SIZES

__all__ = ["CONTRASTS", "NORMS", "SIZES", "AttentionNorm", "UFOViT", "build", "register"]
