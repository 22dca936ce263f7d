"""The field's learned bounds in the place of norms of q and k."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ufo.norms.arithmetic import at_least_float32, scaled_context
from ufo.norms.contract import AttentionNorm, register

ALPHA_START = 0.5
"""Initial alpha of DyT, alpha_init_value in dynamic_tanh.py of jiachenzhu/DyT."""


class DynamicTanh(nn.Module):
    """DyT, weight tanh(alpha x) + bias over the last axis, computed in at least float32; alpha is one number.

    Args:
        dim: length of the last axis.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), ALPHA_START))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of x's shape and type."""
        alpha, weight, bias = (at_least_float32(p) for p in (self.alpha, self.weight, self.bias))
        return (weight * (alpha * at_least_float32(x)).tanh() + bias).to(x.dtype)


@register(
    name="dyt",
    label="DyT (1/N)",
    formula="DyT(q) (DyT(k)^T v) / N, DyT(x) = w tanh(a x) + b",
    latex=(
        r"o_i = \frac{1}{N}\, \mathrm{DyT}_q(q_i) \sum_j \mathrm{DyT}_k(k_j)^\top v_j, \qquad "
        r"\mathrm{DyT}(x) = w \odot \tanh(a x) + b"
    ),
    source="Transformers without Normalization, arXiv 2503.10622, section 4; dynamic_tanh.py of jiachenzhu/DyT",
    group="field",
    invariances={"token_repeat"},
    caveat="dyt: in its paper DyT takes the place of LayerNorm layers; here, that of cosine's L2 norms of q and k.",
)
class DyT(AttentionNorm):
    """The arm cosine with DyT in the place of its L2 norms; all heads share the parameters, as a LayerNorm's."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.norm_q = DynamicTanh(key_dim)
        self.norm_k = DynamicTanh(key_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self.norm_q(q), self.norm_k(k)
        context, scale = scaled_context(k, v)
        return q @ (context / (k.shape[-2] * scale))
