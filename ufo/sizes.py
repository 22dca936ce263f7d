"""Named sizes of UFO-ViT.

The parameters and multiply-adds of T, S, M and B are recalled, without a source. The dimensions give them within 0.5 %
(T: 2.2 % of the parameters). They would not with attn_dim = embed_dim, so attention is narrower than the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from ufo.registry import Registry


@dataclass(frozen=True)
class Size:
    """A named size of UFO-ViT.

    Args:
        name: registry name.
        embed_dim: C.
        attn_dim: A.
        depth: number of blocks.
        num_heads: h.
        class_attention: number of class-attention blocks.
        img_size: side of the intended images, in pixels.
        patch: side of a patch, in pixels.
        checked: source of its dimensions.
    """

    name: str
    embed_dim: int
    attn_dim: int
    depth: int
    num_heads: int
    class_attention: int
    img_size: int
    patch: int
    checked: str


def default_layer_scale(depth: int) -> float:
    """Return the initial LayerScale: 1 up to 12 blocks, 1e-5 above (XCiT, arXiv 2106.09681; UFO-ViT states none).

    >>> default_layer_scale(12), default_layer_scale(24)
    (1.0, 1e-05)
    """
    return 1.0 if depth <= 12 else 1e-5


SIZES: Registry[Size] = Registry("model")

# name, embed_dim, attn_dim, depth, num_heads, class_attention, img_size, patch, checked
for _row in (
    ("ufo_vit_pico", 56, 32, 2, 4, 1, 8, 2, "ours, for 8 px: about 0.1 M parameters"),
    ("ufo_vit_nano", 80, 48, 3, 4, 1, 32, 4, "ours, for 32 px on a CPU: about 0.3 M parameters"),
    ("ufo_vit_micro", 192, 96, 6, 6, 2, 32, 4, "ours, for CIFAR and Tiny-ImageNet on a GPU: about 3 M parameters"),
    ("ufo_vit_deep12", 48, 32, 12, 2, 2, 32, 4, "ours, as deep as S, for 32 px on a CPU: about 0.4 M parameters"),
    ("ufo_vit_deep24", 48, 32, 24, 2, 2, 32, 4, "ours, as deep as M, for 32 px on a CPU: about 0.7 M parameters"),
    ("ufo_vit_t", 192, 96, 24, 4, 2, 224, 16, "as recalled of UFO-ViT-T: 10.0 M parameters, 1.9 G multiply-adds"),
    ("ufo_vit_s", 384, 128, 12, 8, 2, 224, 16, "as recalled of UFO-ViT-S: 20.7 M parameters, 3.7 G multiply-adds"),
    ("ufo_vit_m", 384, 128, 24, 8, 2, 224, 16, "as recalled of UFO-ViT-M: 37.3 M parameters, 7.0 G multiply-adds"),
    ("ufo_vit_b", 512, 128, 24, 8, 2, 224, 16, "as recalled of UFO-ViT-B: 63.7 M parameters, 11.9 G multiply-adds"),
):
    SIZES.add(_row[0], Size(*_row))
