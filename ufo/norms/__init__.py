"""Attention normalisers, which take the place of softmax and are the ablated quantity; one file per group.

A normaliser maps queries, keys and values to the output of one attention operation. Dimension letters:
B batch, h heads, M queries, N keys, d channels of a head (``key_dim`` of q and k, ``value_dim`` of v).

    q (B, h, M, key_dim)    k (B, h, N, key_dim)    v (B, h, N, value_dim)    ->    (B, h, M, value_dim)

The *context* is k^T v, (B, h, key_dim, value_dim). Its rows are key channels, which are contracted with q; its columns
are value channels. XNorm (J. Song, "UFO-ViT", arXiv 2109.14382) normalises q over its channels and the context over key
channels, so that every output entry is a cosine times two gains.
"""

from __future__ import annotations

# Registers the groups: paper, which control imports, then control, related and field in the order of these lines.
from ufo.norms import control, paper, related  # isort: skip
from ufo.norms import field_linear, field_quadratic, field_learned  # isort: skip
from ufo.norms.arithmetic import EPS, head_gain, l2_context, l2_normalise, scaled_context, token_scale
from ufo.norms.contract import NORMS, AttentionNorm, Invariance, NormSpec, RegistrationError, build_norm, register
from ufo.norms.contrasts import CONTRASTS, INTERACTIONS

__all__ = [
    "CONTRASTS",
    "EPS",
    "INTERACTIONS",
    "NORMS",
    "AttentionNorm",
    "Invariance",
    "NormSpec",
    "RegistrationError",
    "build_norm",
    "control",
    "field_learned",
    "field_linear",
    "field_quadratic",
    "head_gain",
    "l2_context",
    "l2_normalise",
    "paper",
    "register",
    "related",
    "scaled_context",
    "token_scale",
]
