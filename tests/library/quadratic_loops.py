"""Formulas of the field's other cores as plain float64 loops over queries and keys, one head at a time.

Shapes as in `library.loops`, which registers them: q (M, d_k), k (N, d_k), v (N, d_v), out (M, d_v).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ufo.norms import AttentionNorm

EPS = 1e-6

HeadLoop = Callable[[AttentionNorm, int, Tensor, Tensor, Tensor], Tensor]
QUADRATIC_LOOPS: dict[str, HeadLoop] = {}


def add(one_head: HeadLoop) -> HeadLoop:
    QUADRATIC_LOOPS[one_head.__name__] = one_head
    return one_head


def dot(x: Tensor, y: Tensor) -> Tensor:
    return sum((x[c] * y[c] for c in range(len(x))), torch.zeros((), dtype=x.dtype))


def total(weights: list[Tensor], v: Tensor) -> Tensor:
    return sum((weight * value for weight, value in zip(weights, v, strict=True)), torch.zeros_like(v[0]))


def softmax_of(scores: list[Tensor], v: Tensor, rest: float = 0.0) -> Tensor:
    """Mean of the values by the exponentials of the scores, with a further weight for nothing in the denominator."""
    weights = [torch.exp(score) for score in scores]
    return total(weights, v) / (rest + sum(weights))


@add
def sigmoid(norm, head, q, k, v):
    rows = []
    for row in q:
        # 1 / (1 + exp(-(l - log N))) is 1 / (1 + N exp(-l))
        weights = [1 / (1 + len(k) * torch.exp(-dot(row, key) / math.sqrt(len(row)))) for key in k]
        rows.append(total(weights, v))
    return torch.stack(rows)


@add
def relu_n(norm, head, q, k, v):
    rows = []
    for row in q:
        scores = [dot(row, key) / math.sqrt(len(row)) for key in k]
        rows.append(total([score * (score > 0) for score in scores], v) / len(k))
    return torch.stack(rows)


@add
def qk_norm(norm, head, q, k, v):
    def length(x: Tensor) -> Tensor:
        return torch.sqrt(dot(x, x) + EPS)

    g = math.log2(len(k) ** 2 - len(k)) + norm.offset[0]  # one for all heads
    return torch.stack([softmax_of([g * dot(row, key) / (length(row) * length(key)) for key in k], v) for row in q])


@add
def ssmax(norm, head, q, k, v):
    rows = []
    for row in q:
        # N^(a l) is exp(a log(N) l)
        powers = [len(k) ** (norm.gain[head, 0, 0] * dot(row, key) / math.sqrt(len(row))) for key in k]
        rows.append(total(powers, v) / sum(powers))
    return torch.stack(rows)


@add
def softmax1(norm, head, q, k, v):
    return torch.stack([softmax_of([dot(row, key) / math.sqrt(len(row)) for key in k], v, rest=1.0) for row in q])


@add
def dyt(norm, head, q, k, v):
    def dynamic_tanh(x: Tensor, part: torch.nn.Module) -> Tensor:
        entries = [part.weight[c] * torch.tanh(part.alpha[0] * x[c]) + part.bias[c] for c in range(len(x))]
        return torch.stack(entries)

    keys = [dynamic_tanh(key, norm.norm_k) for key in k]
    rows = []
    for row in q:
        query = dynamic_tanh(row, norm.norm_q)
        rows.append(total([dot(query, key) for key in keys], v) / len(k))
    return torch.stack(rows)
