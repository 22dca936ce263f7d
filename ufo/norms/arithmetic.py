"""Shared arithmetic of normalisers: norms in at least float32, and contexts within the range of half types."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6
"""Added to a sum of squares before its inverse root, so that a zero vector stays zero."""


def l2_normalise(x: Tensor, *, dim: int | tuple[int, ...], gain: Tensor | float = 1.0, eps: float = EPS) -> Tensor:
    """Return gain x / sqrt(sum x^2 + eps) along one axis or several in x's type, computed in at least float32.

    >>> l2_normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=-1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    wide = at_least_float32(x)
    return (wide * (gain * torch.rsqrt(wide.square().sum(dim, keepdim=True) + eps))).to(x.dtype)


def l1_normalise(x: Tensor, *, dim: int, gain: float = 1.0) -> Tensor:
    """Return gain x / (sum |x| + eps) along one axis in x's type, computed in at least float32.

    >>> l1_normalise(torch.tensor([[1.0, -3.0], [0.0, 0.0]]), dim=-1, gain=4.0).round(decimals=4).tolist()
    [[1.0, -3.0], [0.0, 0.0]]
    """
    wide = at_least_float32(x)
    return (wide * (gain / (wide.abs().sum(dim, keepdim=True) + EPS))).to(x.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half types to float32, and return other types unchanged."""
    return x if x.dtype == torch.float64 else x.float()


def token_scale(num_keys: int) -> float:
    """Return a power of two near 1 / sqrt(N), so that scaling by it is exact.

    >>> token_scale(16384), token_scale(196)
    (0.0078125, 0.0625)
    """
    return 2.0 ** -math.ceil(math.log2(num_keys) / 2)


def scaled_context(k: Tensor, v: Tensor) -> tuple[Tensor, float]:
    """Return s k^T v, (B, h, key_dim, value_dim), and s = `token_scale`.

    The factor keeps the sum over N tokens within the range of half types. A norm of the result needs eps s^2.
    """
    scale = token_scale(k.shape[-2])
    return (k * scale).transpose(-2, -1) @ v, scale


def l2_context(k: Tensor, v: Tensor, *, dim: int, gain: Tensor | float = 1.0) -> Tensor:
    """Return the context, (B, h, key_dim, value_dim), L2-normalised over key channels (-2) or value channels (-1)."""
    context, scale = scaled_context(k, v)
    return l2_normalise(context, dim=dim, gain=gain, eps=EPS * scale**2)


def head_gain(num_heads: int) -> nn.Parameter:
    """Return a learnable gain per head, (h, 1, 1), with initial value 1.

    The source has a gain per head but states neither its initial value nor whether the two factors share it.
    """
    return nn.Parameter(torch.ones(num_heads, 1, 1))


class WideLayerNorm(nn.LayerNorm):
    """LayerNorm of a possibly scaled input, computed in at least float32."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Normalise the last axis of x, an input multiplied by ``scale``, with eps scaled accordingly."""
        wide = at_least_float32(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.normalized_shape, weight, bias, self.eps * scale**2).to(x.dtype)
