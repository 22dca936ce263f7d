"""The linear cores of the field group as plain float64 loops over queries and keys, written from their formulas.

`library.loops` registers them. Shapes of one head: q (M, d_k), k (N, d_k), v (N, d_v), out (M, d_v); of all heads of an
image: (h, M, d_k) and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ufo.norms import AttentionNorm

EPS = 1e-6


def elu_plus_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def weighted(weights: list[list[Tensor]], v: Tensor) -> Tensor:
    """Return sum_j w_ij v_j for each query i."""
    return torch.stack([sum(w * value for w, value in zip(row, v, strict=True)) for row in weights])


def mean(rows: Tensor) -> Tensor:
    return sum(rows) / len(rows)


def row_sum(phi_q: Tensor, phi_k: Tensor, v: Tensor, *, eps: float) -> Tensor:
    """Return sum_j w_ij v_j / (sum_j w_ij + N eps) with w_ij = phi_q_i . phi_k_j."""
    rows = []
    for query in phi_q:
        row = [(query * key).sum() for key in phi_k]
        total = sum(row) + len(phi_k) * eps
        rows.append([w / total for w in row])
    return weighted(rows, v)


def inline(norm, head, q, k, v):
    s, centre = 1 / math.sqrt(q.shape[1]), mean(k)
    rows = []
    for query in q:
        rest = 1 - s * (query * centre).sum()
        rows.append([(s * (query * key).sum() + rest) / len(k) for key in k])
    return weighted(rows, v)


def mala(norm, head, q, k, v):
    s, phi_k = 1 / math.sqrt(q.shape[1]), elu_plus_one(k)
    rows = []
    for query in elu_plus_one(q):
        z = s * (query * mean(phi_k)).sum()
        rows.append([(s * (query * key).sum() * (1 + 1 / (z + EPS)) - z) / len(k) for key in phi_k])
    return weighted(rows, v)


def rala(norm, head, q, k, v):
    phi_q, phi_k = elu_plus_one(q), elu_plus_one(k)
    every = mean(phi_q)
    powers = [torch.exp((every * key).sum() / math.sqrt(q.shape[1])) for key in phi_k]
    shares = [len(k) * power / sum(powers) for power in powers]
    scaled = torch.stack([share * key for share, key in zip(shares, phi_k, strict=True)])
    return row_sum(phi_q, scaled, v, eps=EPS)


def polarity(norm, head, q, k, v):
    power = 1 + 4 / (1 + torch.exp(-norm.power[head, 0]))

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack([relu(row) ** power for row in x]), torch.stack([relu(-row) ** power for row in x])

    (q_plus, q_minus), (k_plus, k_minus) = parts(q), parts(k)
    half = (v.shape[1] + 1) // 2
    halves = []
    for first, second, values in ((q_plus, q_minus, v[:, :half]), (q_minus, q_plus, v[:, half:])):
        rows = []
        for i in range(len(q)):
            row = [(first[i] * k_plus[j]).sum() + (second[i] * k_minus[j]).sum() for j in range(len(k))]
            rows.append([w / (sum(row) + len(k) * EPS) for w in row])
        halves.append(weighted(rows, values))
    return torch.cat(halves, dim=1)


def relu_core(norm, head, q, k, v):
    return row_sum(relu(q), relu(k), v, eps=1e-15 / len(k))


def focused(norm, q, k, v):
    temperature = torch.log(1 + torch.exp(norm.scale))  # (h, 1, d_k)

    def phi(x: Tensor) -> Tensor:
        r = (relu(x) + 1e-6) / temperature
        columns = []
        for n in range(x.shape[1]):
            token, cube = r[:, n], r[:, n] ** 3  # (h, d_k): all channels of all heads
            columns.append(cube * torch.sqrt((token * token).sum()) / torch.sqrt((cube * cube).sum()))
        return torch.stack(columns, dim=1)

    phi_q, phi_k = phi(q), phi(k)
    return torch.stack([row_sum(phi_q[head], phi_k[head], v[head], eps=EPS) for head in range(len(q))])


def hydra(norm, q, k, v):
    def direction(token: Tensor) -> Tensor:
        return token / torch.sqrt((token * token).sum() + EPS)

    total = sum(direction(k[:, j]) * v[:, j] for j in range(k.shape[1]))  # (h, d)
    return torch.stack([direction(q[:, i]) * total for i in range(q.shape[1])], dim=1)


def norm_attention(norm, q, k, v):
    phi_q, phi_k = elu_plus_one(q), elu_plus_one(k)
    tokens = []
    for i in range(q.shape[1]):
        heads = [
            sum((phi_q[head, i] * phi_k[head, j]).sum() * v[head, j] for j in range(k.shape[1]))
            for head in range(len(q))
        ]
        token = torch.stack(heads)  # (h, d_v)
        tokens.append(token * math.sqrt(token.numel()) / torch.sqrt((token * token).sum() + EPS))
    return torch.stack(tokens, dim=1)


ONE_HEAD: dict[str, Callable[[AttentionNorm, int, Tensor, Tensor, Tensor], Tensor]] = {
    "inline": inline,
    "mala": mala,
    "rala": rala,
    "polarity": polarity,
    "relu": relu_core,
}
"""Loops over one head."""

ALL_HEADS: dict[str, Callable[[AttentionNorm, Tensor, Tensor, Tensor], Tensor]] = {
    "focused": focused,
    "hydra": hydra,
    "norm_attention": norm_attention,
}
"""Loops over an image, whose norms are over the channels of all heads."""
