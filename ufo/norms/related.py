"""The related group: replacements for softmax in other linear attentions."""

from __future__ import annotations

from torch import Tensor

from ufo.norms.arithmetic import (
    EPS,
    at_least_float32,
    head_gain,
    l1_normalise,
    l2_normalise,
    scaled_context,
    token_scale,
)
from ufo.norms.contract import AttentionNorm, register


@register(
    name="efficient",
    label="Efficient Attention",
    formula="softmax_channel(q) (softmax_token(k)^T v)",
    source="Efficient Attention, arXiv 1812.01243",
    group="related",
    invariances={"token_repeat"},
    latex=(
        r"o_{ic} = \sum_a \frac{\exp q_{ia}}{\sum_b \exp q_{ib}} "
        r"\sum_j \frac{\exp k_{ja}}{\sum_l \exp k_{la}}\, v_{jc}"
    ),
)
class Efficient(AttentionNorm):
    """Softmax of q over its channels and of k over the tokens: each output is a weighted mean of the values."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])
        weights = (at_least_float32(k).softmax(-2) / scale).to(k.dtype)  # scaled up, since 1 / N is inexact in float16
        context = weights.transpose(-2, -1) @ v * scale  # (B, h, key_dim, value_dim)
        return at_least_float32(q).softmax(-1).to(q.dtype) @ context


@register(
    name="elu",
    label="Linear Transformer",
    formula="phi(q) (phi(k)^T v) / (phi(q) sum phi(k)), phi = elu + 1",
    source="Linear Transformer, arXiv 2006.16236",
    group="related",
    invariances={"token_repeat"},
    latex=(
        r"o_i = \frac{\phi(q_i) \sum_j \phi(k_j)^\top v_j}{\phi(q_i) \cdot \sum_j \phi(k_j)}, \qquad "
        r"\phi(x) = \mathrm{elu}(x) + 1"
    ),
    instability=(
        "In kernel-based linear attention the division by the sum of the weights leaves gradients unbounded, which "
        "impairs convergence, arXiv 2210.10340."
    ),
)
class Elu(AttentionNorm):
    """Positive feature map in place of exp, normalised by the sum of the weights."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])
        phi_q, phi_k = (elu_plus_one(at_least_float32(x)) for x in (q, k))
        phi_k = phi_k * scale
        context = phi_k.to(k.dtype).transpose(-2, -1) @ v  # (B, h, key_dim, value_dim)
        total = phi_q @ phi_k.sum(-2, keepdim=True).transpose(-2, -1)  # (B, h, M, 1), positive
        return phi_q.to(q.dtype) @ context / (total + EPS * scale).to(q.dtype)


@register(
    name="cosine",
    label="cosine (1/N)",
    formula="L2_channel(q) (L2_channel(k)^T v) / N",
    source="cosine similarity in the place of softmax, as in QK-Norm, arXiv 2010.04245, without its softmax",
    group="related",
    invariances={"q_scale", "token_repeat"},
    latex=r"o_i = \frac{1}{N} \sum_j \frac{q_i \cdot k_j}{\lVert q_i \rVert\, \lVert k_j \rVert}\, v_j",
)
class Cosine(AttentionNorm):
    """Sum of the values weighted by the cosine of query and key, divided by the number of keys."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context, scale = scaled_context(l2_normalise(k, dim=-1), v)
        return l2_normalise(q, dim=-1) @ (context / (k.shape[-2] * scale))


@register(
    name="sima",
    label="SimA",
    formula="l1_token(q) (l1_token(k)^T v)",
    source="SimA, arXiv 2206.08898",
    group="related",
    cross=False,
    invariances={"q_scale", "k_channels", "token_repeat"},
    latex=r"o_{ic} = \sum_a \frac{q_{ia}}{\sum_l |q_{la}|} \sum_j \frac{k_{ja}}{\sum_l |k_{la}|}\, v_{jc}",
)
class SimA(AttentionNorm):
    """l1 normalisation of q and k over the tokens; a single query would reduce to its sign, so no cross attention."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])  # entries of about 1 / N, too small for float16, are scaled up
        context = l1_normalise(k, dim=-2, gain=1 / scale).transpose(-2, -1) @ v  # (B, h, key_dim, value_dim)
        return l1_normalise(q, dim=-2, gain=1 / scale**2) @ (context * scale) * scale**2


@register(
    name="xca",
    label="XCA",
    formula="v softmax_keychannel(t L2_token(q)^T L2_token(k))^T",
    source="XCiT, arXiv 2106.09681",
    group="related",
    cross=False,
    needs_dk_eq_dv=True,
    invariances={"q_scale", "k_channels"},
    latex=(
        r"o_{ic} = \sum_a v_{ia}\, A_{ac}, \qquad "
        r"A_{ac} = \frac{\exp(t \cos(k_{\ast a}, q_{\ast c}))}{\sum_b \exp(t \cos(k_{\ast b}, q_{\ast c}))}"
    ),
    instability=(
        "XCiT, arXiv 2106.09681, reports that normalising q and k makes training much more stable, above all "
        "if the number of tokens varies."
    ),
)
class XCA(AttentionNorm):
    """Cross-covariance attention: channels attend to channels, with a learnable temperature per head, initially 1."""

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.temperature = head_gain(num_heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = token_scale(k.shape[-2])  # entries of about 1 / sqrt(N), small in float16, are scaled up
        k = l2_normalise(k, dim=-2, gain=1 / scale)
        cosines = k.transpose(-2, -1) @ l2_normalise(q, dim=-2, gain=self.temperature)  # (B, h, key_dim, query channel)
        return v @ (at_least_float32(cosines) * scale).softmax(-2).to(v.dtype)


def elu_plus_one(x: Tensor) -> Tensor:
    """Return x + 1 above 0 and exp(x) below, faster than elu, whose exponential is not vectorised on a CPU."""
    return x.clamp(max=0).exp() + x.relu()
