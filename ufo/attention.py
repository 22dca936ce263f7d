"""Multi-head attention around a normaliser: projections and heads.

Dimension letters: B batch, N tokens, C ``embed_dim``, A ``attn_dim``, h heads, d = A / h.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ufo.norms import NORMS, build_norm


class UFOAttention(nn.Module):
    """Self-attention with a normaliser in place of softmax, (B, N, C) to (B, N, C).

    Args:
        embed_dim: C.
        attn_dim: A, the inner width of q, k and v; UFO-ViT's is narrower than C.
        num_heads: h, a divisor of A.
        norm: registry name of the normaliser.

    Attributes:
        matched_gain: fixed factor of the normaliser's output, a scalar; None for no factor, absent from the state dict.

    Raises:
        ValueError: h does not divide A.
        UnknownNameError: the normaliser is unknown.
    """

    def __init__(self, *, embed_dim: int, attn_dim: int, num_heads: int, norm: str) -> None:
        super().__init__()
        head_dim = _head_dim(attn_dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * attn_dim)
        self.norm = build_norm(norm, num_heads=num_heads, key_dim=head_dim, value_dim=head_dim)
        self.proj = nn.Linear(attn_dim, embed_dim)
        self.matched_gain: Tensor | None
        self.register_buffer("matched_gain", None)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to all tokens."""
        q, k, v = split_heads(self.qkv(x), self.num_heads, parts=3)  # each (B, h, N, d)
        return self.proj(merge_heads(scaled(self.norm(q, k, v), self.matched_gain)))


class ClassAttention(nn.Module):
    """Attention from the class token to itself and the patches, as in CaiT (arXiv 2103.17239), with a normaliser.

    A normaliser without ``cross``, which cannot take one query and many keys, is replaced by softmax; see `uses`.

    Args:
        embed_dim: C.
        attn_dim: A.
        num_heads: h, a divisor of A.
        norm: registry name of the normaliser.
    """

    def __init__(self, *, embed_dim: int, attn_dim: int, num_heads: int, norm: str) -> None:
        super().__init__()
        head_dim = _head_dim(attn_dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dim, attn_dim)
        self.kv = nn.Linear(embed_dim, 2 * attn_dim)
        self.norm = build_norm(self.uses(norm), num_heads=num_heads, key_dim=head_dim, value_dim=head_dim)
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
        return self.proj(merge_heads(scaled(self.norm(q, k, v), self.matched_gain)))


def scaled(output: Tensor, gain: Tensor | None) -> Tensor:
    """Multiply an attention output by the scalar gain of `ufo.scale.match_scale`, if there is one."""
    return output if gain is None else output * gain


def split_heads(x: Tensor, num_heads: int, *, parts: int) -> tuple[Tensor, ...]:
    """Split (B, N, parts A) into ``parts`` views of shape (B, h, N, d)."""
    B, N, width = x.shape
    return x.view(B, N, parts, num_heads, width // parts // num_heads).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """Join the heads, (B, h, N, d) to (B, N, A)."""
    return x.transpose(1, 2).flatten(2)


def _head_dim(attn_dim: int, num_heads: int) -> int:
    if attn_dim % num_heads:
        raise ValueError(f"attn_dim {attn_dim} is not divisible by {num_heads} heads")
    return attn_dim // num_heads
