"""The paper group: XNorm and the alternatives in the paper's ablation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ufo.norms.arithmetic import EPS, WideLayerNorm, head_gain, l2_context, l2_normalise, scaled_context
from ufo.norms.contract import AttentionNorm, register

SINGLE_L2_CAVEAT = (
    '"Single L2Norm" is not defined in the source: single_l2 normalises q alone; single_l2_kv, k^T v alone.'
)

MOST_FAIL = (
    "UFO-ViT, arXiv 2109.14382, reports that most normalisation methods other than XNorm fail to reduce the loss."
)

SINGLE_POOR = "UFO-ViT, arXiv 2109.14382, reports that a single L2Norm performs poorly."


@register(
    name="xnorm",
    label="XNorm",
    formula="g_q L2_channel(q) g_kv L2_keychannel(k^T v)",
    source="UFO-ViT, arXiv 2109.14382",
    group="paper",
    invariances={"q_scale", "v_channels", "token_repeat"},
    latex=(
        r"o_{ic} = g_q\, g_{kv}\, "
        r"\frac{q_i \cdot S_{\ast c}}{\lVert q_i \rVert\, \lVert S_{\ast c} \rVert}, \qquad "
        r"S = k^\top v"
    ),
)
class XNorm(AttentionNorm):
    """Cross-normalisation: every output entry is g_q g_kv cos(q_i, column j of k^T v)."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.gain_q = head_gain(num_heads)
        self.gain_kv = head_gain(num_heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1, gain=self.gain_q) @ l2_context(k, v, dim=-2, gain=self.gain_kv)


@register(
    name="l2",
    label="L2",
    formula="L2_channel(q) L2_valuechannel(k^T v)",
    source="UFO-ViT's ablation, arXiv 2109.14382, read as L2 over each factor's last axis, not crossed",
    group="paper",
    invariances={"q_scale", "k_channels", "token_repeat"},
    latex=(
        r"o_{ic} = \sum_a \frac{q_{ia}}{\lVert q_i \rVert}\, \frac{S_{ac}}{\lVert S_a \rVert}, \qquad "
        r"S = k^\top v"
    ),
    instability=MOST_FAIL,
)
class L2(AttentionNorm):
    """L2 normalisation of both factors over their last axes, without a gain."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1) @ l2_context(k, v, dim=-1)


@register(
    name="single_l2",
    label="single L2 (q)",
    formula="L2_channel(q) (k^T v), no 1/N",
    source="UFO-ViT's ablation, arXiv 2109.14382",
    group="paper",
    invariances={"q_scale"},
    caveat=SINGLE_L2_CAVEAT,
    latex=r"o_i = \frac{q_i}{\lVert q_i \rVert}\, S, \qquad S = k^\top v",
    instability=SINGLE_POOR,
)
class SingleL2(AttentionNorm):
    """L2 normalisation of q only; the context keeps its scale, which grows with N and may overflow half types."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1) @ (k.transpose(-2, -1) @ v)


@register(
    name="layernorm",
    label="LayerNorm",
    formula="LayerNorm(q) LayerNorm_keychannel(k^T v)",
    source="UFO-ViT's ablation, arXiv 2109.14382",
    group="paper",
    invariances={"q_scale", "v_channels", "token_repeat"},
    latex=(
        r"o_{ic} = \mathrm{LN}_q(q_i) \cdot \mathrm{LN}_{kv}(S_{\ast c}), \qquad "
        r"\mathrm{LN}(x) = w \odot \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \epsilon}} + b, \qquad "
        r"S = k^\top v"
    ),
    instability=MOST_FAIL,
)
class LayerNorm(AttentionNorm):
    """LayerNorm of both factors over the contracted axis; all heads share the affine parameters."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.norm_q = WideLayerNorm(key_dim, eps=EPS)
        self.norm_kv = WideLayerNorm(key_dim, eps=EPS)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context_t, scale = scaled_context(v, k)  # (B, h, value_dim, key_dim): the key channels last
        return self.norm_q(q) @ self.norm_kv(context_t, scale=scale).transpose(-2, -1)


@register(
    name="softmax",
    label="softmax",
    formula="softmax(q k^T / sqrt d) v",
    source="Attention Is All You Need, arXiv 1706.03762",
    group="paper",
    linear=False,
    invariances={"token_repeat"},
    latex=r"o_i = \sum_j \frac{\exp(q_i \cdot k_j / \sqrt{d})}{\sum_l \exp(q_i \cdot k_l / \sqrt{d})}\, v_j",
    instability=(
        "Low attention entropy, which means weights concentrated on few keys, accompanies an oscillating "
        "loss or divergence, arXiv 2303.06296."
    ),
)
class Softmax(AttentionNorm):
    """Scaled dot-product attention, quadratic in N: the standard attention."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)
