"""Each normaliser's formula as plain float64 loops: one output entry at a time, from cosines, sums and roots.

Shapes of one head: q (M, d_k), k (N, d_k), v (N, d_v), out (M, d_v). eps is 1e-6 beside each sum of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from library import linear_loops
from library.quadratic_loops import QUADRATIC_LOOPS
from torch import Tensor

from ufo import NORMS
from ufo.norms import AttentionNorm
from ufo.testing import Reference

EPS = 1e-6
HeadLoop = Callable[[AttentionNorm, int, Tensor, Tensor, Tensor], Tensor]
ImageLoop = Callable[[AttentionNorm, Tensor, Tensor, Tensor], Tensor]
LOOPS: dict[str, Reference] = {}
OWN = [spec.name for spec in NORMS.values() if spec.cls.__module__.startswith("ufo.")]
"""The library's own normalisers: other tests may have registered plug-ins."""


def loop(name: str) -> Callable[[HeadLoop], HeadLoop]:
    """Register a loop over one head as the reference of a normaliser."""

    def add(one_head: HeadLoop) -> HeadLoop:
        def reference(norm: AttentionNorm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            B, h = q.shape[:2]
            heads = [one_head(norm, j, q[b, j], k[b, j], v[b, j]) for b in range(B) for j in range(h)]
            return torch.stack(heads).unflatten(0, (B, h))

        LOOPS[name] = reference
        return one_head

    return add


def loop_over_images(name: str) -> Callable[[ImageLoop], ImageLoop]:
    """Register a loop over all heads of an image, (h, M, d_k) and so on, as the reference of a normaliser."""

    def add(one_image: ImageLoop) -> ImageLoop:
        def reference(norm: AttentionNorm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return torch.stack([one_image(norm, q[b], k[b], v[b]) for b in range(len(q))])

        LOOPS[name] = reference
        return one_image

    return add


def context(k: Tensor, v: Tensor) -> Tensor:
    """k^T v, (d_k, d_v), as a sum over tokens."""
    total = torch.zeros(k.shape[1], v.shape[1], dtype=k.dtype)
    for n in range(len(k)):
        total = total + torch.outer(k[n], v[n])
    return total


def length(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).sum() + EPS)


def contract(q: Tensor, ctx: Tensor) -> Tensor:
    return torch.stack([torch.stack([(row * ctx[:, j]).sum() for j in range(ctx.shape[1])]) for row in q])


def unit_rows(x: Tensor) -> Tensor:
    return torch.stack([row / length(row) for row in x])


def unit_columns(x: Tensor) -> Tensor:
    return torch.stack([x[:, j] / length(x[:, j]) for j in range(x.shape[1])], dim=1)


def cosines(q: Tensor, ctx: Tensor) -> Tensor:
    """cos(q_i, column j of the context)."""
    columns = ctx.unbind(dim=1)
    return torch.stack([torch.stack([(row * c).sum() / (length(row) * length(c)) for c in columns]) for row in q])


def gains(norm: AttentionNorm, head: int) -> Tensor:
    """g_q g_kv of a head: two parameters, since one that serves both factors acts squared."""
    own = dict(norm.named_parameters())  # A parameter known by two names comes once.
    assert {"gain_q", "gain_kv"} <= own.keys(), f"a gain for each factor is a parameter of its own, not {sorted(own)}"
    return own["gain_q"][head, 0, 0] * own["gain_kv"][head, 0, 0]


@loop("xnorm")
def xnorm(norm, head, q, k, v):
    return gains(norm, head) * cosines(q, context(k, v))


@loop("xnorm_fixed")
def xnorm_fixed(norm, head, q, k, v):
    return cosines(q, context(k, v))


@loop("rmsnorm")
def rmsnorm(norm, head, q, k, v):
    return q.shape[1] * cosines(q, context(k, v))


@loop("xnorm_value")
def xnorm_value(norm, head, q, k, v):
    return gains(norm, head) * contract(unit_rows(q), unit_rows(context(k, v)))


@loop("l2")
def l2(norm, head, q, k, v):
    return contract(unit_rows(q), unit_rows(context(k, v)))


@loop("single_l2")
def single_l2(norm, head, q, k, v):
    return contract(unit_rows(q), context(k, v))


@loop("single_l2_kv")
def single_l2_kv(norm, head, q, k, v):
    return contract(q, unit_columns(context(k, v)))


@loop("none")
def none(norm, head, q, k, v):
    return contract(q, context(k, v)) / len(k)


@loop("layernorm")
def layernorm(norm, head, q, k, v):
    def standardise(x: Tensor, affine: torch.nn.LayerNorm) -> Tensor:
        mean = x.sum() / len(x)
        variance = ((x - mean) ** 2).sum() / len(x)
        return (x - mean) / torch.sqrt(variance + EPS) * affine.weight + affine.bias

    rows = torch.stack([standardise(row, norm.norm_q) for row in q])
    columns = [standardise(column, norm.norm_kv) for column in context(k, v).T]
    return contract(rows, torch.stack(columns, dim=1))


@loop("softmax")
def softmax(norm, head, q, k, v):
    rows = []
    for row in q:
        scores = [(row * key).sum() / math.sqrt(len(row)) for key in k]
        weights = [torch.exp(score) for score in scores]
        rows.append(sum(w * value for w, value in zip(weights, v, strict=True)) / sum(weights))
    return torch.stack(rows)


@loop("efficient")
def efficient(norm, head, q, k, v):
    over_channels = torch.stack([torch.exp(row) / torch.exp(row).sum() for row in q])
    over_tokens = torch.stack([torch.exp(c) / torch.exp(c).sum() for c in k.unbind(dim=1)], dim=1)
    return contract(over_channels, context(over_tokens, v))


@loop("elu")
def elu(norm, head, q, k, v):
    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

    rows = []
    for row in q:
        weights = [(phi(row) * phi(key)).sum() for key in k]
        rows.append(sum(w * value for w, value in zip(weights, v, strict=True)) / (sum(weights) + EPS))
    return torch.stack(rows)


@loop("cosine")
def cosine(norm, head, q, k, v):
    rows = []
    for row in q:
        weights = [(row * key).sum() / (length(row) * length(key)) for key in k]
        rows.append(sum(w * value for w, value in zip(weights, v, strict=True)) / len(k))
    return torch.stack(rows)


@loop("sima")
def sima(norm, head, q, k, v):
    def over_tokens(x: Tensor) -> Tensor:
        return torch.stack([c / (sum(abs(entry) for entry in c) + EPS) for c in x.unbind(dim=1)], dim=1)

    return contract(over_tokens(q), context(over_tokens(k), v))


@loop("xca")
def xca(norm, head, q, k, v):
    columns = []
    for i in range(q.shape[1]):
        scores = [
            norm.temperature[head, 0, 0] * (q[:, i] * k[:, j]).sum() / (length(q[:, i]) * length(k[:, j]))
            for j in range(k.shape[1])
        ]
        weights = [torch.exp(score) for score in scores]
        columns.append(sum(w * v[:, j] for j, w in enumerate(weights)) / sum(weights))
    return torch.stack(columns, dim=1)


for name, one_head in linear_loops.ONE_HEAD.items():
    loop(name)(one_head)
for name, one_image in linear_loops.ALL_HEADS.items():
    loop_over_images(name)(one_image)
for name, one_head in QUADRATIC_LOOPS.items():
    loop(name)(one_head)
