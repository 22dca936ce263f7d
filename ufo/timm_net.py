"""UFO-ViT with timm's model interface, registered by `ufo.timm_models`.

Dimension letters: B batch, N tokens, C ``embed_dim``; a token grid is H x W, so N = H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ufo.attention import CorePrecision
from ufo.init import init_parameters
from ufo.layers import Lpi
from ufo.model import UFOViT

POOLS = ("", "avg", "token")
"""Pooling of tokens in `TimmUFOViT.forward_head`: none, mean of the patches, or the class token."""


class TimmUFOViT(UFOViT):
    """UFO-ViT with timm's model interface.

    ``forward_features`` returns the tokens after the last LayerNorm, with the class token, if any, first.
    ``forward_head`` pools and classifies. Image sides can be any multiple of the patch; positions are interpolated.

    Args:
        norm: registry name of the normaliser.
        num_classes: width of the output; 0 gives the pooled features, (B, C).
        in_chans: image channels.
        img_size: size of the positional table's images: a side, or (height, width), in pixels.
        patch_size: side of a patch, in pixels.
        embed_dim: C.
        attn_dim: A, inner width of attention.
        depth: number of blocks.
        num_heads: h, a divisor of A.
        patch_embed: ``conv`` or ``linear``.
        lpi: whether blocks have local patch interaction; ``bn_first`` for BatchNorm before GELU.
        ff_ratio: hidden width of the feed-forwards as a multiple of C; 0 for none.
        pos_embed: ``learned``, ``sincos`` or ``none``.
        class_attention: number of class-attention blocks; 0 for none.
        class_norm: normaliser in class attention; ``same`` for ``norm``.
        layer_scale: initial LayerScale factor; None for the depth's.
        output_gate: whether attention outputs are gated, as in `UFOViT`.
        core_precision: precision of attention cores, as in `UFOViT`.
        global_pool: one of `POOLS`; None for ``token`` with class attention and ``avg`` without.
        drop_rate: dropout rate before the head, in [0, 1).
        drop_path_rate: share of samples that a residual branch drops in training, in [0, 1).
        seed: seed of the initial weights, keyed by parameter name; None draws it from torch's default generator, so
            that ``torch.manual_seed`` applies as to timm's own models.

    Raises:
        ValueError: a value is out of range, two sizes are incompatible, or the pooling is unknown.
        UnknownNameError: the normaliser is unknown.
    """

    def __init__(
        self,
        *,
        norm: str,
        num_classes: int,
        in_chans: int,
        img_size: int | tuple[int, int],
        patch_size: int,
        embed_dim: int,
        attn_dim: int,
        depth: int,
        num_heads: int,
        patch_embed: str,
        lpi: Lpi,
        ff_ratio: int,
        pos_embed: str,
        class_attention: int,
        class_norm: str,
        layer_scale: float | None,
        output_gate: bool,
        core_precision: CorePrecision,
        global_pool: str | None,
        drop_rate: float,
        drop_path_rate: float,
        seed: int | None,
    ) -> None:
        # fork_rng: layers draw weights that are not used; later draws of the default generator must not depend on them.
        chosen = int(torch.randint(2**62, ())) if seed is None else seed
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                norm=norm,
                num_classes=num_classes,
                in_chans=in_chans,
                img_size=(img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1]),
                patch=patch_size,
                embed_dim=embed_dim,
                attn_dim=attn_dim,
                depth=depth,
                num_heads=num_heads,
                patch_embed=patch_embed,
                lpi=lpi,
                ff_ratio=ff_ratio,
                pos_embed=pos_embed,
                class_attention=class_attention,
                class_norm=class_norm,
                layer_scale=layer_scale,
                drop_path=drop_path_rate,
                output_gate=output_gate,
                core_precision=core_precision,
            )
        init_parameters(self, seed=chosen)
        self.seed, self.num_classes, self.in_chans = chosen, num_classes, in_chans
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.num_prefix_tokens = 0 if self.cls_token is None else 1
        self.global_pool = self._check_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.grad_checkpointing = False
        self.feature_info = [
            {"num_chs": embed_dim, "reduction": patch_size, "module": f"blocks.{i}"} for i in range(depth)
        ]

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Classify images as `UFOViT.forward` does, or every token if there is no pooling."""
        return self.forward_head(self.forward_features(images, keep))

    def forward_features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the tokens after the last LayerNorm: (B, 1 + N, C) with the class token first, or (B, N, C)."""
        x, _ = self._run(images, keep, taken=frozenset(), num_blocks=len(self.blocks), classify=True)
        return self.norm(x)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify the tokens of `forward_features`; ``pre_logits`` omits the classifier."""
        pooled = tokens
        if self.global_pool == "avg":
            pooled = tokens[:, self.num_prefix_tokens :].mean(dim=1)
        elif self.global_pool == "token":
            pooled = tokens[:, 0]
        pooled = self.head_drop(pooled)
        return pooled if pre_logits else self.head(pooled)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the patches after some blocks together with the output of `forward_features`, as timm's models do.

        Args:
            images: (B, in_chans, height, width), normalised.
            indices: block indices, negative ones from the end; a number n for the last n blocks; None for all.
            norm: whether to apply the last LayerNorm to the intermediates.
            stop_early: whether to skip the blocks after the last index, class attention included; the first returned
                tensor is then the patches at that block after the last LayerNorm.
            output_fmt: ``NCHW`` for (B, C, H, W), or ``NLC`` for (B, N, C).
            intermediates_only: whether to return only the intermediates.

        Raises:
            ValueError: the format is unknown.
            IndexError: an index is out of range.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got '{output_fmt}'")
        depth = len(self.blocks)
        taken, last = _take_indices(depth, indices)
        num_blocks = last + 1 if stop_early else depth
        classify = not (stop_early or intermediates_only)
        x, patches = self._run(images, None, taken=frozenset(taken), num_blocks=num_blocks, classify=classify)
        patches = [self.norm(own) for own in patches] if norm else patches
        if output_fmt == "NCHW":
            H, W = self._token_grid(images.shape[2], images.shape[3])
            patches = [own.transpose(1, 2).reshape(len(own), -1, H, W) for own in patches]
        return patches if intermediates_only else (self.norm(x), patches)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the layers that the given intermediates do not need, and return their non-negative indices.

        Args:
            indices: block indices, as in `forward_intermediates`.
            prune_norm: whether to remove the last LayerNorm.
            prune_head: whether to remove class attention and the classifier.

        Raises:
            IndexError: an index is out of range.
        """
        taken, last = _take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()  # type: ignore[assignment]  # not used by a feature extractor
        if prune_head:
            self.class_blocks, self.cls_token, self.num_prefix_tokens = nn.ModuleList(), None, 0
            self.reset_classifier(0, "")
        left = (f"blocks.{i}." for i in range(last + 1)), (f"class_blocks.{i}." for i in range(len(self.class_blocks)))
        self.branches = [name for name in self.branches if name.startswith((*left[0], *left[1]))]
        return list(taken)

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, initialised from the net's seed.

        Args:
            num_classes: width of the output; 0 for no head.
            global_pool: one of `POOLS`; None to keep the current one.

        Raises:
            ValueError: the pooling is unknown or needs class attention.
        """
        if global_pool is not None:
            self.global_pool = self._check_pool(global_pool)
        self.num_classes = num_classes
        like = next(self.parameters())
        head: nn.Linear | nn.Identity = nn.Identity()
        if num_classes:
            with torch.random.fork_rng(devices=[]):
                head = nn.Linear(self.num_features, num_classes)
            init_parameters(nn.ModuleDict({"head": head}), seed=self.seed)
        head.to(device=like.device, dtype=like.dtype).train(self.training)
        self.head = head

    def no_weight_decay(self) -> set[str]:
        """Return the names of all parameters except the weights of linear layers and convolutions."""
        matrices = {f"{name}.weight" for name, m in self.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
        return {name for name, _ in self.named_parameters() if name not in matrices}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns for parameter groups by depth: one per block, or one for all blocks if ``coarse``."""
        each = "" if coarse else r"\.(\d+)"
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": rf"^blocks{each}",
            "class_blocks": [(rf"^class_blocks{each}", None), (r"^norm", (99999,))],  # LayerNorm as deep as the head
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Store only the inputs of blocks in training and recompute the rest, which saves memory and takes time.

        BatchNorm in local patch interaction then processes each batch twice, so its running statistics adapt faster.
        """
        self.grad_checkpointing = enable

    def _run(
        self, images: Tensor, keep: Tensor | None, *, taken: frozenset[int], num_blocks: int, classify: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the first blocks, and return the tokens before the last LayerNorm and the patches after ``taken``."""
        rows = self.rows_by_block(images, keep)
        x, grid = self.embed(images)
        patches = []
        for i, block in enumerate(self.blocks[:num_blocks]):
            own = next(rows)
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, grid, own, use_reentrant=False)
            else:
                x = block(x, grid, own)
            if i in taken:
                patches.append(x)
        if classify and self.cls_token is not None:
            x = torch.cat((self.class_token(x, rows), x), dim=1)  # (B, 1 + N, C)
        return x, patches

    def _check_pool(self, global_pool: str | None) -> str:
        if global_pool is None:
            return "token" if self.num_prefix_tokens else "avg"
        if global_pool not in POOLS:
            raise ValueError(f"global_pool must be '', avg or token, got '{global_pool}'")
        if global_pool == "token" and not self.num_prefix_tokens:
            raise ValueError("global_pool 'token' needs class attention: set class_attention >= 1, or use 'avg'")
        return global_pool


def _take_indices(num_blocks: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Return the non-negative indices of the given blocks, and the largest of them.

    Raises:
        IndexError: an index is out of range, or there is none.

    >>> _take_indices(12, 2), _take_indices(12, [0, -1])
    (([10, 11], 11), ([0, 11], 11))
    """
    if indices is None or isinstance(indices, int):
        indices = range(-(num_blocks if indices is None else indices), 0)
    if not indices or not all(-num_blocks <= index < num_blocks for index in indices):
        raise IndexError(f"indices {list(indices)} are out of range for {num_blocks} blocks")
    taken = [index % num_blocks for index in indices]
    return taken, max(taken)
