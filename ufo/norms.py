"""Attention normalisers: what stands in the place of softmax. The ablated quantity, all in one place.

A normaliser maps queries, keys and values to the output of one attention operation. Dimension letters:
B batch, h heads, M queries, N keys, d channels of a head (``key_dim`` of q and k, ``value_dim`` of v).

    q (B, h, M, key_dim)    k (B, h, N, key_dim)    v (B, h, N, value_dim)    ->    (B, h, M, value_dim)

The *context* is k^T v, (B, h, key_dim, value_dim): its rows are key channels, the axis that q contracts with,
its columns value channels. XNorm (J. Song, "UFO-ViT", arXiv 2109.14382) normalises q over its channels and the
context over key channels, so that every output entry is a cosine times two gains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ufo.registry import Registry

N = TypeVar("N", bound="AttentionNorm")

EPS = 1e-6
"""Added to a sum of squares before its inverse root, so that a zero vector stays zero."""

Invariance = Literal["q_scale", "k_channels", "v_channels", "token_repeat"]
"""A change of the input that may leave the output as it is: q times a factor; each channel of k, or of v, times a
factor of its own; every key and value given twice."""

Group = Literal["paper", "control", "related", "plug-in"]

SINGLE_L2_CAVEAT = (
    '"Single L2Norm" is not defined in the source: single_l2 normalises q alone; single_l2_kv, k^T v alone.'
)


class AttentionNorm(nn.Module):
    """Base of every normaliser: ``forward(q, k, v)`` with the shapes of the module's head.

    The constructor draws no random numbers, and computes norms in at least float32.

    Args:
        num_heads: h; a learnable gain per head has the shape (h, 1, 1).
        key_dim: channels of q and k in one head.
        value_dim: channels of v in one head.
    """

    def __init__(self, *, num_heads: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attention output, (B, h, M, value_dim)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class NormSpec:
    """What the registry knows of a normaliser.

    Args:
        name: lower snake case; the same on the command line, in files and in figures.
        label: as a figure's legend writes it.
        formula: one line, in the letters of this module.
        source: paper and place, or why it is here.
        group: one of `Group`.
        linear: whether its cost grows linearly with N at M = N.
        cross: whether it can serve one query against many keys, as class attention needs.
        needs_dk_eq_dv: whether key_dim must equal value_dim.
        invariances: exactly the changes of `Invariance` that leave its output as it is.
        caveat: one sentence that stands wherever its result is shown; empty where there is none.
        cls: the class.
    """

    name: str
    label: str
    formula: str
    source: str
    group: Group
    linear: bool
    cross: bool
    needs_dk_eq_dv: bool
    invariances: frozenset[Invariance]
    caveat: str
    cls: type[AttentionNorm]


@dataclass(frozen=True)
class Contrast:
    """Two arms that differ in one thing, so that their difference means something.

    Args:
        arm: the first normaliser's name.
        minus: the second's, subtracted from it.
        isolates: the one thing in which they differ.
    """

    arm: str
    minus: str
    isolates: str


@dataclass(frozen=True)
class Interaction:
    """Two contrasts that isolate the same thing in two places: whether it matters where.

    Args:
        first: a contrast.
        second: the one that is subtracted from it.
        isolates: what their difference tells.
    """

    first: Contrast
    second: Contrast
    isolates: str


NORMS: Registry[NormSpec] = Registry("normaliser")

CONTRASTS = (
    Contrast("xnorm", "xnorm_fixed", "the gain"),
    Contrast("xnorm", "xnorm_value", "the axis, with a gain"),
    Contrast("xnorm_fixed", "l2", "the axis, without a gain"),
    Contrast("xnorm_value", "l2", "the gain, on the value axis"),
    Contrast("xnorm_fixed", "single_l2", "normalising k^T v"),
    Contrast("xnorm_fixed", "single_l2_kv", "normalising q"),
    Contrast("rmsnorm", "xnorm_fixed", "scale alone"),
    Contrast("layernorm", "rmsnorm", "centring and affine"),
    Contrast("xnorm_fixed", "none", "normalising at all"),
)

INTERACTIONS = (Interaction(CONTRASTS[1], CONTRASTS[2], "whether the axis matters more with a gain"),)


def register(
    *,
    name: str,
    label: str,
    formula: str,
    source: str,
    group: Group = "plug-in",
    linear: bool = True,
    cross: bool = True,
    needs_dk_eq_dv: bool = False,
    invariances: set[Invariance],
    caveat: str = "",
) -> Callable[[type[N]], type[N]]:
    """Class decorator: make a normaliser known under its name. Arguments as `NormSpec`.

    A class that comes again from the same module under the same name (a reloaded plug-in) takes the old one's place.

    Raises:
        ValueError: the name is no lower snake case, another class has it, or a group or an invariance is none.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"a normaliser's name is lower snake case, not '{name}'")
    for what, given, valid in (("group", {group}, get_args(Group)), ("invariance", invariances, get_args(Invariance))):
        if unknown := sorted(set(given) - set(valid)):
            raise ValueError(f"normaliser '{name}': unknown {what} '{unknown[0]}'. Valid: {', '.join(valid)}")

    def add(cls: type[N]) -> type[N]:
        spec = NormSpec(
            name=name,
            label=label,
            formula=formula,
            source=source,
            group=group,
            linear=linear,
            cross=cross,
            needs_dk_eq_dv=needs_dk_eq_dv,
            invariances=frozenset(invariances),
            caveat=caveat,
            cls=cls,
        )
        known = NORMS[name].cls if name in NORMS else None
        reloaded = known is not None and (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
        (NORMS.replace if reloaded else NORMS.add)(name, spec)
        return cls

    return add


def build_norm(name: str, *, num_heads: int, key_dim: int, value_dim: int) -> AttentionNorm:
    """Build a normaliser by its registry name.

    Raises:
        UnknownNameError: no such normaliser.
        ValueError: it needs key_dim = value_dim, and they differ.
    """
    spec = NORMS[name]
    if spec.needs_dk_eq_dv and key_dim != value_dim:
        raise ValueError(f"normaliser '{name}' needs key_dim = value_dim, not {key_dim} and {value_dim}")
    return spec.cls(num_heads=num_heads, key_dim=key_dim, value_dim=value_dim)


def l2_normalise(x: Tensor, *, dim: int, gain: Tensor | float = 1.0, eps: float = EPS) -> Tensor:
    """Return gain x / sqrt(sum x^2 + eps) along one axis, computed in at least float32, in x's type.

    >>> l2_normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=-1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    wide = _at_least_float32(x)
    return (wide * (gain * torch.rsqrt(wide.square().sum(dim, keepdim=True) + eps))).to(x.dtype)


def token_scale(num_keys: int) -> float:
    """Return about 1 / sqrt(N) as a power of two, so that scaling by it is exact.

    >>> token_scale(16384), token_scale(196)
    (0.0078125, 0.0625)
    """
    return 2.0 ** -math.ceil(math.log2(num_keys) / 2)


def scaled_context(k: Tensor, v: Tensor) -> tuple[Tensor, float]:
    """Return s k^T v, (B, h, key_dim, value_dim), and s = `token_scale`.

    The factor keeps the sum over N tokens within a half type's range. A norm taken of it needs eps s^2.
    """
    scale = token_scale(k.shape[-2])
    return (k * scale).transpose(-2, -1) @ v, scale


def l2_context(k: Tensor, v: Tensor, *, dim: int, gain: Tensor | float = 1.0) -> Tensor:
    """Return the context, (B, h, key_dim, value_dim), L2-normalised over key channels (-2) or value channels (-1)."""
    context, scale = scaled_context(k, v)
    return l2_normalise(context, dim=dim, gain=gain, eps=EPS * scale**2)


def head_gain(num_heads: int) -> nn.Parameter:
    """Return a learnable gain per head, (h, 1, 1), from 1.

    The source has a gain per head but states neither its start nor whether the two factors share it.
    """
    return nn.Parameter(torch.ones(num_heads, 1, 1))


class WideLayerNorm(nn.LayerNorm):
    """LayerNorm computed in at least float32, of an input that may come scaled."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Normalise the last axis of x, which is ``scale`` times what eps is meant for."""
        wide = _at_least_float32(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.normalized_shape, weight, bias, self.eps * scale**2).to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@register(
    name="xnorm",
    label="XNorm",
    formula="g_q L2_channel(q) g_kv L2_keychannel(k^T v)",
    source="UFO-ViT, arXiv 2109.14382",
    group="paper",
    invariances={"q_scale", "v_channels", "token_repeat"},
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
)
class L2(AttentionNorm):
    """L2 of both factors over their own last axis, without a gain."""

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
)
class SingleL2(AttentionNorm):
    """L2 of q alone; the context keeps its scale, which grows with N and may overflow a half type."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return l2_normalise(q, dim=-1) @ (k.transpose(-2, -1) @ v)


@register(
    name="layernorm",
    label="LayerNorm",
    formula="LayerNorm(q) LayerNorm_keychannel(k^T v)",
    source="UFO-ViT's ablation, arXiv 2109.14382",
    group="paper",
    invariances={"q_scale", "v_channels", "token_repeat"},
)
class LayerNorm(AttentionNorm):
    """LayerNorm of both factors over the axis that q contracts with; the affine is shared by the heads."""

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
)
class Softmax(AttentionNorm):
    """Scaled dot-product attention, quadratic in N: the field's reference."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@register(
    name="xnorm_fixed",
    label="XNorm, gain 1",
    formula="L2_channel(q) L2_keychannel(k^T v)",
    source="control: xnorm without its gain",
    group="control",
    invariances={"q_scale", "v_channels", "token_repeat"},
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
)
class XNormValue(AttentionNorm):
    """XNorm with the context normalised over value channels: same shape and scale, another function."""

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
)
class SingleL2KV(AttentionNorm):
    """L2 of the context alone, over key channels; q as it is."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q @ l2_context(k, v, dim=-2)


@register(
    name="rmsnorm",
    label="RMSNorm",
    formula="sqrt(d) L2_channel(q) sqrt(d) L2_keychannel(k^T v)",
    source="control: xnorm_fixed at the scale of a LayerNorm; RMSNorm, arXiv 1910.07467",
    group="control",
    invariances={"q_scale", "v_channels", "token_repeat"},
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
)
class NoNorm(AttentionNorm):
    """The plain product, divided by the number of keys."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context, scale = scaled_context(k, v)
        return q @ (context / (k.shape[-2] * scale))
