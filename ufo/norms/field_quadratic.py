"""The field's quadratic cores: softmax with other logits or another denominator, and other functions in its place.

What stands around a core in its paper (norms of q and k, LayerScale, positions in the logits) is left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo.norms.arithmetic import at_least_float32, l2_normalise, token_scale
from ufo.norms.contract import AttentionNorm, register

SSMAX_START = 0.168
"""Initial factor of log N: with it, the mean of the factor times log n over n = 1, ..., 1,024 is 1."""


@register(
    name="sigmoid",
    label="sigmoid",
    formula="sigmoid(q k^T / sqrt d - log N) v",
    latex=(
        r"o_i = \sum_j \sigma\!\left(\frac{q_i \cdot k_j}{\sqrt{d}} - \log N\right) v_j, \qquad "
        r"\sigma(x) = \frac{1}{1 + e^{-x}}"
    ),
    source="Sigmoid Self-Attention, arXiv 2409.04431, section 2; its bias b = -log n, appendix E",
    group="field",
    linear=False,
    invariances=set(),
    instability=(
        "Large initial attention norms: stabilising them early in training is crucial (arXiv 2409.04431, abstract); "
        "-log N does so at small logits."
    ),
)
class Sigmoid(AttentionNorm):
    """A sigmoid of each logit, without a sum over keys; the fixed bias -log N makes the weights sum to about 1."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])
        weights = (at_least_float32(_logits(q, k)) - math.log(k.shape[-2])).sigmoid()  # (B, h, M, N), about 1 / N
        return (weights / scale).to(v.dtype) @ (v * scale)  # scaled up, since 1 / N is inexact in float16


@register(
    name="relu_n",
    label="ReLU / N",
    formula="relu(q k^T / sqrt d) v / N",
    latex=r"o_i = \frac{1}{N} \sum_j \mathrm{relu}\!\left(\frac{q_i \cdot k_j}{\sqrt{d}}\right) v_j",
    source="Replacing softmax with ReLU in Vision Transformers, arXiv 2309.08586, equation 1 with phi = relu / L",
    group="field",
    linear=False,
    invariances={"token_repeat"},
    instability=(
        "Its paper trains with LayerNorm of q and k, found necessary elsewhere against instability at scale; leaving "
        "it out had no large effect up to ViT-S/8 (arXiv 2309.08586, section 4)."
    ),
)
class ReluN(AttentionNorm):
    """Positive logits as weights, divided by the number of keys."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])
        weights = _logits(q * scale, k).relu()  # (B, h, M, N), scaled to keep the sum over N within float16
        return weights @ v / (k.shape[-2] * scale)


@register(
    name="qk_norm",
    label="QK-Norm",
    formula="softmax(g L2_channel(q) L2_channel(k)^T) v, g = log2(N^2 - N) + offset",
    latex=(
        r"o_i = \sum_j \frac{\exp(g \cos_{ij})}{\sum_l \exp(g \cos_{il})}\, v_j, \qquad "
        r"\cos_{ij} = \frac{q_i \cdot k_j}{\lVert q_i \rVert\, \lVert k_j \rVert}, \qquad "
        r"g = \log_2(N^2 - N) + \delta"
    ),
    source="QK-Norm, arXiv 2010.04245; initial g and its sharing by the heads: QKNorm/layers.py of CyndxAI/QKNorm",
    group="field",
    linear=False,
    invariances={"q_scale"},
)
class QKNorm(AttentionNorm):
    """Softmax of cosines times a learnable g, which all heads share.

    Differs from the paper: its g starts at log2(L^2 - L) for a length L that 97.5 % of the training sequences keep to.
    Here L is the N of the call, since all images of a batch have as many tokens, and the parameter is what g gains over
    that start. With one N, value, gradient and optimiser steps of g are the paper's.
    """

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_keys = k.shape[-2]
        start = math.log2(max(num_keys**2 - num_keys, 1))  # any g gives a single key the weight 1
        q = l2_normalise(q, dim=-1, gain=start + at_least_float32(self.offset))
        return F.scaled_dot_product_attention(q, l2_normalise(k, dim=-1), v, scale=1.0)


@register(
    name="ssmax",
    label="SSMax",
    formula="softmax(a log(N) q k^T / sqrt d) v",
    latex=(
        r"o_i = \sum_j \frac{\exp(a \log(N)\, \ell_{ij})}{\sum_l \exp(a \log(N)\, \ell_{il})}\, v_j, \qquad "
        r"\ell_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}}"
    ),
    source="Scalable-Softmax, arXiv 2501.19399, without its optional bias; a per head and layer, initially 0.168",
    group="field",
    linear=False,
    invariances=set(),
)
class SSMax(AttentionNorm):
    """Softmax whose logits grow with log N, so that many keys do not flatten it; learnable factor per head."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.gain = nn.Parameter(torch.full((num_heads, 1, 1), SSMAX_START))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        factor = at_least_float32(self.gain) * math.log(k.shape[-2])  # (h, 1, 1)
        return F.scaled_dot_product_attention((at_least_float32(q) * factor).to(q.dtype), k, v)


@register(
    name="softmax1",
    label="softmax1",
    formula="exp(l) / (1 + sum exp(l)) v, l = q k^T / sqrt d",
    latex=(
        r"o_i = \sum_j \frac{\exp(\ell_{ij})}{1 + \sum_l \exp(\ell_{il})}\, v_j, \qquad "
        r"\ell_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}}"
    ),
    source="E. Miller, Attention Is Off By One, 2023, evanmiller.org/attention-is-off-by-one.html",
    group="field",
    linear=False,
    invariances=set(),
)
class Softmax1(AttentionNorm):
    """Softmax with 1 added to its denominator, so that a query can attend to nothing: a further key and value of 0."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)))


def _logits(q: Tensor, k: Tensor) -> Tensor:
    """Return q k^T / sqrt(d), (B, h, M, N), in q's type."""
    return q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
