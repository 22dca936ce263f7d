"""The control group: normalisers that differ from one in the paper group in one factor."""

from __future__ import annotations

import math

from torch import Tensor

from ufo.norms.arithmetic import head_gain, l2_context, l2_normalise, scaled_context
from ufo.norms.contract import AttentionNorm, register
from ufo.norms.paper import SINGLE_L2_CAVEAT, SINGLE_POOR


@register(
    name="xnorm_fixed",
    label="XNorm, gain 1",
    formula="L2_channel(q) L2_keychannel(k^T v)",
    source="control: xnorm without its gain",
    group="control",
    invariances={"q_scale", "v_channels", "token_repeat"},
    latex=(
        r"o_{ic} = \frac{q_i \cdot S_{\ast c}}{\lVert q_i \rVert\, \lVert S_{\ast c} \rVert}, \qquad "
        r"S = k^\top v"
    ),
)
class XNormFixed(AttentionNorm):
    """XNorm with both gains fixed at 1."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-2)


@register(
    name="xnorm_value",
    label="XNorm, value axis",
    formula="g_q L2_channel(q) g_kv L2_valuechannel(k^T v)",
    source="control: xnorm on the other axis, as most public ports have it by mistake",
    group="control",
    invariances={"q_scale", "k_channels", "token_repeat"},
    latex=(
        r"o_{ic} = g_q\, g_{kv} \sum_a "
        r"\frac{q_{ia}}{\lVert q_i \rVert}\, \frac{S_{ac}}{\lVert S_a \rVert}, \qquad "
        r"S = k^\top v"
    ),
)
class XNormValue(AttentionNorm):
    """XNorm with the context normalised over value channels: the same shape and scale, but another function."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.gain_q = head_gain(num_heads)
        self.gain_kv = head_gain(num_heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-1, gain=self.gain_kv)


@register(
    name="single_l2_kv",
    label="single L2 (k^T v)",
    formula="q L2_keychannel(k^T v)",
    source='control: the other reading of "single L2Norm"',
    group="control",
    invariances={"v_channels", "token_repeat"},
    caveat=SINGLE_L2_CAVEAT,
    latex=r"o_{ic} = \frac{q_i \cdot S_{\ast c}}{\lVert S_{\ast c} \rVert}, \qquad S = k^\top v",
    instability=SINGLE_POOR,
)
class SingleL2KV(AttentionNorm):
    """L2 normalisation of the context only, over key channels; q is unchanged."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q @ l2_context(k, v, dim=-2)


@register(
    name="rmsnorm",
    label="RMSNorm",
    formula="sqrt(d) L2_channel(q) sqrt(d) L2_keychannel(k^T v)",
    source="control: xnorm_fixed at the scale of a LayerNorm; RMSNorm, arXiv 1910.07467",
    group="control",
    invariances={"q_scale", "v_channels", "token_repeat"},
    latex=(
        r"o_{ic} = d\, \frac{q_i \cdot S_{\ast c}}{\lVert q_i \rVert\, \lVert S_{\ast c} \rVert}, \qquad "
        r"S = k^\top v"
    ),
)
class RMSNorm(AttentionNorm):
    """XNorm with both gains fixed at sqrt(key_dim)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        gain = math.sqrt(self.key_dim)
        return l2_normalise(q, dim=-1, gain=gain) @ l2_context(k, v, dim=-2, gain=gain)


@register(
    name="none",
    label="none (1/N)",
    formula="q (k^T v) / N",
    source="control: nothing normalised",
    group="control",
    invariances={"token_repeat"},
    latex=r"o_i = \frac{1}{N}\, q_i S, \qquad S = k^\top v",
)
class NoNorm(AttentionNorm):
    """The unnormalised product, divided by the number of keys."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context, scale = scaled_context(k, v)
        return q @ (context / (k.shape[-2] * scale))
