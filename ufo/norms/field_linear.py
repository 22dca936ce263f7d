"""The field group's linear cores: what later linear attentions have in the place of softmax.

Each is the core alone. What stands around it in its paper is left out of all: depth-wise convolution of v or another
local branch, rotary or learned positions, output gate. s is key_dim^-1/2; means and sums are over the N keys.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo.norms.arithmetic import EPS, at_least_float32, l2_normalise, token_scale
from ufo.norms.contract import AttentionNorm, register
from ufo.norms.related import elu_plus_one

UNBOUNDED = (
    "The gradient of linear attention with a row-sum denominator is unbounded, which impairs convergence"
    " (The Devil in Linear Transformer, arXiv 2210.10340, abstract)."
)


@register(
    name="inline",
    label="InLine",
    formula="s q (k^T v) / N + (1 - s q . mean k) mean v",
    latex=r"o_i = \frac{s}{N}\, q_i \sum_j k_j^\top v_j + \bigl(1 - s\, q_i \bar{k}^\top\bigr)\, \bar{v}",
    source="InLine attention, arXiv 2412.06590, Eq. 5 with the scale of the authors' code and its identity kernel:"
    " LeapLabTHU/InLine, models/inline_deit.py, InLineAttention",
    group="field",
    invariances={"token_repeat"},
    instability="The authors met no NaN and call it as stable as softmax (https://github.com/LeapLabTHU/InLine/issues/5).",
)
class InLine(AttentionNorm):
    """Weights that sum to 1 by a subtraction: the mean of v, plus s q times the covariance of k and v."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        deviation = at_least_float32(q * self.key_dim**-0.5 @ covariance(k, v))
        return (deviation + mean_token(v)).to(v.dtype)


@register(
    name="mala",
    label="MALA",
    formula="s phi(q) (phi(k)^T v) / N (1 + 1/z) - z mean v, z = s phi(q) . mean phi(k), phi = elu + 1",
    latex=r"o_i = \Bigl(1 + \frac{1}{z_i}\Bigr) \frac{s}{N}\, \phi(q_i) \sum_j \phi(k_j)^\top v_j - z_i \bar{v}, \quad"
    r" z_i = \frac{s}{N}\, \phi(q_i) \sum_j \phi(k_j)^\top, \quad \phi = \mathrm{elu} + 1",
    source="MALA, arXiv 2507.00698; authors' code: qhfan/MALA, classfication_release/model.py, AddLinearAttention",
    group="field",
    invariances={"token_repeat"},
)
class MALA(AttentionNorm):
    """Weights that grow with the length of the query, and sum to 1 by a subtraction; eps 1e-6 beside z, as there.

    The formula is rearranged around the covariance of phi(k) and v, so that no large terms cancel in half types.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phi_q, phi_k = elu_plus_one(at_least_float32(q)) * self.key_dim**-0.5, elu_plus_one(at_least_float32(k))
        z = (phi_q * mean_token(phi_k)).sum(-1, keepdim=True)  # (B, h, M, 1), positive
        deviation = (phi_q * (1 + 1 / (z + EPS))).to(v.dtype) @ covariance(phi_k, v)
        return (at_least_float32(deviation) + z / (z + EPS) * mean_token(v)).to(v.dtype)


@register(
    name="rala",
    label="RALA",
    formula="row-normalised phi(q) (a phi(k))^T v, a_j = N softmax_j(s mean phi(q) . phi(k_j)), phi = elu + 1",
    latex=r"o_i = \frac{\phi(q_i) \sum_j \alpha_j \phi(k_j)^\top v_j}{\phi(q_i) \sum_j \alpha_j \phi(k_j)^\top}, \quad"
    r" \alpha_j = N\, \mathrm{softmax}_j\bigl(s\, \overline{\phi(q)}\, \phi(k_j)^\top\bigr), \quad"
    r" \phi = \mathrm{elu} + 1",
    source="RALA, arXiv 2411.07635; authors' code: qhfan/RALA, classfication/RALA.py, GateLinearAttentionNoSilu",
    group="field",
    cross=False,
    invariances={"token_repeat"},
    caveat="rala is RALA's key weighting alone: its other half, the gate of the output, is left out.",
    instability=UNBOUNDED,
)
class RALA(AttentionNorm):
    """Keys weighted by the mean of all queries, which a single query would be itself, so no cross attention."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phi_q, phi_k = (elu_plus_one(at_least_float32(x)) for x in (q, k))
        logits = (phi_k * (mean_token(phi_q) * self.key_dim**-0.5)).sum(-1, keepdim=True)  # (B, h, N, 1)
        return weighted_mean(phi_q, phi_k * (logits.softmax(-2) * k.shape[-2]), v, eps=EPS)


@register(
    name="focused",
    label="Focused (FLatten)",
    formula="row-normalised phi(q) (phi(k)^T v), phi(x) = |r| r^3 / |r^3|, r = (relu(x) + 1e-6) / softplus(scale),"
    " norms over the channels of all heads",
    latex=r"o_i = \frac{\phi(q_i) \sum_j \phi(k_j)^\top v_j}{\phi(q_i) \sum_j \phi(k_j)^\top}, \quad"
    r" \phi(x) = \frac{\lVert r \rVert_h}{\lVert r^3 \rVert_h}\, r^3, \quad"
    r" r = \frac{\mathrm{relu}(x) + 10^{-6}}{\mathrm{softplus}(\theta)}",
    source="Focused linear attention, arXiv 2308.00442; authors' code: LeapLabTHU/FLatten-Transformer,"
    " models/flatten_pvt.py, FocusedLinearAttention",
    group="field",
    invariances={"token_repeat"},
    caveat="focused is the focused kernel alone: the depth-wise convolution of v that restores the rank is left out.",
    instability="In mixed precision a user met NaN from the start, since the denominator and k^T v exceed float16"
    " (LeapLabTHU/FLatten-Transformer, issue 15); here factors and sums are kept in range. " + UNBOUNDED,
)
class Focused(AttentionNorm):
    """Kernel that turns a token towards its largest channels and keeps its length, over the channels of all heads.

    Its learnable scale per head and channel, which q and k share, starts at 0.
    """

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.scale = nn.Parameter(torch.zeros(num_heads, 1, key_dim))

    def feature_map(self, x: Tensor) -> Tensor:
        """Map queries or keys, (B, h, N, key_dim), to positive ones of the same shape in at least float32."""
        r = (at_least_float32(x).relu() + EPS) / F.softplus(at_least_float32(self.scale))
        length = r.square().sum((1, 3), keepdim=True).sqrt()  # (B, 1, N, 1), positive
        cube = (r / length) ** 3  # of a unit vector, whose cube's length is at least 1 / (h key_dim)
        return l2_normalise(cube, dim=(1, 3), gain=length, eps=0.0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return weighted_mean(self.feature_map(q), self.feature_map(k), v, eps=EPS)


@register(
    name="polarity",
    label="PolaFormer",
    formula="row-normalised [q+, q-] ([k+, k-]^T v_1), [q-, q+] ([k+, k-]^T v_2), x+- = relu(+-x)^p,"
    " p = 1 + 4 sigmoid(power)",
    latex=r"\begin{gathered} o_i = \left[ \frac{[q_i^+, q_i^-] \sum_j [k_j^+, k_j^-]^\top v_j^{(1)}}"
    r"{[q_i^+, q_i^-] \sum_j [k_j^+, k_j^-]^\top},\; \frac{[q_i^-, q_i^+] \sum_j [k_j^+, k_j^-]^\top v_j^{(2)}}"
    r"{[q_i^-, q_i^+] \sum_j [k_j^+, k_j^-]^\top} \right], \quad v_j = \bigl[v_j^{(1)}, v_j^{(2)}\bigr], \\"
    r" x^\pm = \mathrm{relu}(\pm x)^p, \quad p = 1 + 4\, \sigma(\theta) \end{gathered}",
    source="PolaFormer, arXiv 2501.15061; authors' code: ZacharyMeng/PolaFormer, models/pola_pvt.py,"
    " PolaLinearAttention",
    group="field",
    invariances={"token_repeat"},
    caveat="polarity is PolaFormer's kernel alone: its coefficients G, a gate of the output, and its depth-wise"
    " convolution of v are left out.",
    instability=UNBOUNDED,
)
class Polarity(AttentionNorm):
    """Same-signed interactions for the first half of v, opposite-signed ones for the second, with a learnable power.

    The power per head and channel starts at 0, so the exponent at 3. Differs from the paper: q and k are not divided by
    a learnable scale per channel, which starts the same for all channels and cancels there.
    """

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)
        self.power = nn.Parameter(torch.zeros(num_heads, 1, key_dim))

    def polar_parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return relu(x)^p and relu(-x)^p, each with the shape of x and in at least float32."""
        exponent = 1 + 4 * at_least_float32(self.power).sigmoid()
        wide = at_least_float32(x)
        size = wide.abs() ** exponent  # once, since a power is most of the cost
        return torch.where(wide > 0, size, 0.0), torch.where(wide < 0, size, 0.0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        plus, minus = self.polar_parts(q)
        phi_k = torch.cat(self.polar_parts(k), dim=-1)  # (B, h, N, 2 key_dim)
        same, opposite = v.tensor_split(2, dim=-1)
        queries = (torch.cat((plus, minus), dim=-1), torch.cat((minus, plus), dim=-1))
        halves = [weighted_mean(x, phi_k, y, eps=EPS) for x, y in zip(queries, (same, opposite), strict=True)]
        return torch.cat(halves, dim=-1)


@register(
    name="relu",
    label="ReLU linear",
    formula="relu(q) (relu(k)^T v) / (relu(q) sum relu(k))",
    latex=r"o_i = \frac{\mathrm{relu}(q_i) \sum_j \mathrm{relu}(k_j)^\top v_j}"
    r"{\mathrm{relu}(q_i) \sum_j \mathrm{relu}(k_j)^\top}",
    source="EfficientViT, arXiv 2205.14756, and SANA, arXiv 2410.10629; authors' code: mit-han-lab/efficientvit,"
    " efficientvit/models/nn/ops.py, LiteMLA; NVlabs/Sana, diffusion/model/nets/sana_blocks.py, LiteLA",
    group="field",
    invariances={"q_scale", "token_repeat"},
    instability="In mixed precision the loss is NaN at once unless products and division are in float32"
    " (mit-han-lab/efficientvit, issues 15 and 110); here factors and sums are kept in range instead. " + UNBOUNDED,
)
class ReLU(AttentionNorm):
    """ReLU in place of exp, normalised by the sum of the weights; 1e-15 beside the sum, as in the authors' code."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phi_q, phi_k = (at_least_float32(x).relu() for x in (q, k))
        return weighted_mean(phi_q, phi_k, v, eps=1e-15 / k.shape[-2])


@register(
    name="hydra",
    label="Hydra",
    formula="L2(q) * sum_j L2(k_j) * v_j, elementwise, L2 over the channels of all heads",
    latex=r"o_i = \frac{q_i}{\lVert q_i \rVert_h} \odot \sum_j \frac{k_j}{\lVert k_j \rVert_h} \odot v_j",
    source="Hydra Attention, arXiv 2209.07484: the code in the appendix, with the cosine kernel",
    group="field",
    needs_dk_eq_dv=True,
    invariances={"q_scale"},
)
class Hydra(AttentionNorm):
    """As many heads as channels: the number of heads changes nothing, and there is no 1/N."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        directions = l2_normalise(at_least_float32(k), dim=(1, 3))
        total = (directions * v).sum(-2, keepdim=True)  # (B, h, 1, d)
        return (l2_normalise(at_least_float32(q), dim=(1, 3)) * total).to(v.dtype)


@register(
    name="norm_attention",
    label="NormAttention",
    formula="RMSNorm(phi(q) (phi(k)^T v)) over the channels of all heads, phi = elu + 1",
    latex=r"o_i = \mathrm{RMSNorm}_h\Bigl(\phi(q_i) \sum_j \phi(k_j)^\top v_j\Bigr), \quad \phi = \mathrm{elu} + 1",
    source="NormAttention, arXiv 2210.10340; authors' code: OpenNLPLab/fairseq-evo,"
    " fairseq/modules/x_attention/norm_linear_attention.py, as roberta_transnormer_t2 builds it (1+elu, simplermsnorm)",
    group="field",
    invariances={"token_repeat"},
    instability="Made to stabilise the gradient, which the division by the sum of the weights leaves unbounded"
    " (arXiv 2210.10340, abstract).",
)
class NormAttention(AttentionNorm):
    """No denominator; instead an RMSNorm of the output without a gain, over the channels of all heads.

    Differs from the paper: eps is 1e-6 beside the sum of squares, as in every norm here, and not 1e-8 beside its root.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phi_q, phi_k = (elu_plus_one(at_least_float32(x)) for x in (q, k))
        out = at_least_float32(phi_q.to(v.dtype) @ mean_context(phi_k, v))  # 1/N of the sum over keys
        gain = math.sqrt(self.num_heads * self.value_dim)
        return l2_normalise(out, dim=(1, 3), gain=gain, eps=EPS / k.shape[-2] ** 2).to(v.dtype)


def weighted_mean(phi_q: Tensor, phi_k: Tensor, v: Tensor, *, eps: float) -> Tensor:
    """Return sum_j w_ij v_j / (sum_j w_ij + N eps) in v's type, with w_ij = phi(q_i) . phi(k_j).

    Written as a mean over channels of a mean over keys: m_c = sum_j phi(k_jc) v_j / S_c with S_c = sum_j phi(k_jc), and
    out_i = sum_c phi(q_ic) S_c m_c / (sum_c phi(q_ic) S_c + N eps). All its weights are in [0, 1], so that no product
    leaves the range of half types, however large or small phi is, and a query that meets no key gives zero.

    Args:
        phi_q: mapped queries, (B, h, M, c), not negative, in at least float32.
        phi_k: mapped keys, (B, h, N, c), likewise.
        v: values, (B, h, N, value_dim).
        eps: added to the mean weight of a query.
    """
    num_keys, scale = phi_k.shape[-2], token_scale(phi_k.shape[-2])
    sums = phi_k.sum(-2, keepdim=True)  # (B, h, 1, c)
    key_weights = phi_k / torch.where(sums > 0, sums * scale, 1.0)  # scaled up, since 1 / N is inexact in float16
    means = key_weights.to(v.dtype).transpose(-2, -1) @ v * scale  # (B, h, c, value_dim)
    joint = phi_q * sums  # (B, h, M, c)
    return (joint / (joint.sum(-1, keepdim=True) + num_keys * eps)).to(v.dtype) @ means


def mean_token(x: Tensor) -> Tensor:
    """Return the mean over tokens, (B, h, 1, d), in at least float32."""
    return at_least_float32(x).mean(-2, keepdim=True)


def mean_context(k: Tensor, v: Tensor) -> Tensor:
    """Return k^T v / N, (B, h, key_dim, value_dim), in v's type, by sums within the range of half types."""
    scale = token_scale(k.shape[-2])
    return k.to(v.dtype).transpose(-2, -1) @ (v * scale) / (k.shape[-2] * scale)


def covariance(k: Tensor, v: Tensor) -> Tensor:
    """Return sum_j (k_j - mean k)^T (v_j - mean v) / N, (B, h, key_dim, value_dim), in v's type."""
    return mean_context(k - mean_token(k), (v - mean_token(v)).to(v.dtype))
