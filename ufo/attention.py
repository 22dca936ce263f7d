"""Multi-head attention around a normaliser: projections, heads, precision of the core and gate of its output.

Dimension letters: B batch, N tokens, C ``embed_dim``, A ``attn_dim``, h heads, d = A / h.
"""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ufo.norms import NORMS, build_norm
from ufo.norms.arithmetic import at_least_float32

CorePrecision = Literal["own", "float32"]
"""Precision of the core, from q, k and v to the normaliser's output: that of the net, or at least float32."""

CORE_PRECISIONS: tuple[CorePrecision, ...] = get_args(CorePrecision)


class UFOAttention(nn.Module):
    """Self-attention with a normaliser in place of softmax, (B, N, C) to (B, N, C).

    With a gate, the joined heads are multiplied elementwise by sigmoid(W_g x + b_g) before the output projection, with
    x the layer's input (arXiv 2505.06708; ``elementwise_attn_output_gate`` in qiuzh20/gated_attention,
    modeling_qwen3.py).
    Differs from the paper: in RALA (arXiv 2411.07635; qhfan/RALA, classfication/RALA.py) and MALA (arXiv 2507.00698;
    qhfan/MALA, classfication_release/model.py) the factor is W_g x + b_g without a sigmoid, and a depth-wise
    convolution of v is added to the heads before; the gate here is the same for every normaliser.

    Args:
        embed_dim: C.
        attn_dim: A, the inner width of q, k and v; UFO-ViT's is narrower than C.
        num_heads: h, a divisor of A.
        norm: registry name of the normaliser.
        output_gate: whether the output is gated.
        core_precision: one of `CORE_PRECISIONS`; ``float32`` for a core in float32 under autocast.

    Attributes:
        matched_gain: fixed factor of the normaliser's output, a scalar; None for no factor, absent from the state dict.
        gate: W_g, C to A; None for no gate, absent from the state dict.

    Raises:
        ValueError: h does not divide A, or the precision is unknown.
        UnknownNameError: the normaliser is unknown.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        attn_dim: int,
        num_heads: int,
        norm: str,
        output_gate: bool = False,
        core_precision: CorePrecision = "own",
    ) -> None:
        super().__init__()
        head_dim = _head_dim(attn_dim, num_heads)
        self.num_heads, self.core_precision = num_heads, _checked(core_precision)
        self.qkv = nn.Linear(embed_dim, 3 * attn_dim)
        self.norm = build_norm(norm, num_heads=num_heads, key_dim=head_dim, value_dim=head_dim)
        self.gate = nn.Linear(embed_dim, attn_dim) if output_gate else None
        self.proj = nn.Linear(attn_dim, embed_dim)
        self.matched_gain: Tensor | None
        self.register_buffer("matched_gain", None)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to all tokens."""
        q, k, v = split_heads(self.qkv(x), self.num_heads, parts=3)  # each (B, h, N, d)
        return self.proj(gated(merge_heads(_attend(self, q, k, v)), x, self.gate))


class ClassAttention(nn.Module):
    """Attention from the class token to itself and the patches, as in CaiT (arXiv 2103.17239), with a normaliser.

    A normaliser without ``cross``, which cannot take one query and many keys, is replaced by softmax; see `uses`. A
    gate is computed from the class token.

    Args:
        embed_dim: C.
        attn_dim: A.
        num_heads: h, a divisor of A.
        norm: registry name of the normaliser.
        output_gate: as in `UFOAttention`.
        core_precision: as in `UFOAttention`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        attn_dim: int,
        num_heads: int,
        norm: str,
        output_gate: bool = False,
        core_precision: CorePrecision = "own",
    ) -> None:
        super().__init__()
        head_dim = _head_dim(attn_dim, num_heads)
        self.num_heads, self.core_precision = num_heads, _checked(core_precision)
        self.q = nn.Linear(embed_dim, attn_dim)
        self.kv = nn.Linear(embed_dim, 2 * attn_dim)
        self.norm = build_norm(self.uses(norm), num_heads=num_heads, key_dim=head_dim, value_dim=head_dim)
        self.gate = nn.Linear(embed_dim, attn_dim) if output_gate else None
        self.proj = nn.Linear(attn_dim, embed_dim)
        self.matched_gain: Tensor | None
        self.register_buffer("matched_gain", None)

    @staticmethod
    def uses(norm: str) -> str:
        """Return the normaliser used in class attention: the given one, or softmax."""
        return norm if NORMS[norm].cross else "softmax"

    def forward(self, cls: Tensor, patches: Tensor) -> Tensor:
        """Return the update of the class token, (B, 1, C), from the class token, (B, 1, C), and patches, (B, N, C)."""
        tokens = torch.cat((cls, patches), dim=1)  # (B, 1 + N, C)
        (q,) = split_heads(self.q(cls), self.num_heads, parts=1)  # (B, h, 1, d)
        k, v = split_heads(self.kv(tokens), self.num_heads, parts=2)  # (B, h, 1 + N, d)
        return self.proj(gated(merge_heads(_attend(self, q, k, v)), cls, self.gate))


def scaled(output: Tensor, gain: Tensor | None) -> Tensor:
    """Multiply an attention output by the scalar gain of `ufo.scale.match_scale`, if there is one."""
    return output if gain is None else output * gain


def gated(heads: Tensor, x: Tensor, gate: nn.Module | None) -> Tensor:
    """Multiply the joined heads, (B, N, A), by the sigmoid of a gate of the input x, (B, N, C), if there is one.

    >>> gated(torch.tensor([[[8.0]]]), torch.tensor([[[0.0]]]), nn.Identity()).item()
    4.0
    """
    return heads if gate is None else heads * torch.sigmoid(gate(x))


def split_heads(x: Tensor, num_heads: int, *, parts: int) -> tuple[Tensor, ...]:
    """Split (B, N, parts A) into ``parts`` views of shape (B, h, N, d)."""
    B, N, width = x.shape
    return x.view(B, N, parts, num_heads, width // parts // num_heads).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """Join the heads, (B, h, N, d) to (B, N, A)."""
    return x.transpose(1, 2).flatten(2)


def _attend(layer: UFOAttention | ClassAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Run a layer's core in its precision, with its fixed gain; return the output, (B, h, M, d), in v's type."""
    if layer.core_precision == "own":
        return scaled(layer.norm(q, k, v), layer.matched_gain)
    with _no_autocast(v.device.type):
        output = layer.norm(at_least_float32(q), at_least_float32(k), at_least_float32(v))
        return scaled(output, layer.matched_gain).to(v.dtype)


def _no_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off; devices that do not have it, such as ``meta``, need nothing."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def _head_dim(attn_dim: int, num_heads: int) -> int:
    if attn_dim % num_heads:
        raise ValueError(f"attn_dim {attn_dim} is not divisible by {num_heads} heads")
    return attn_dim // num_heads


def _checked(core_precision: CorePrecision) -> CorePrecision:
    if core_precision not in CORE_PRECISIONS:
        raise ValueError(f"core_precision must be one of {', '.join(CORE_PRECISIONS)}, got '{core_precision}'")
    return core_precision
