"""Named recipes: the values of a cell's fields that they stand for, on each kind of data."""

from __future__ import annotations

import math
from typing import Any

from ablations.study import UsageError
from ufo.registry import unknown_name

QUICK: dict[str, Any] = {
    "min_lr_share": 0.01,
    "warmup_epochs": 1,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "grad_clip": 1.0,
}

DEIT: dict[str, Any] = {
    "policy": "rand_augment",
    "color_jitter": 0.4,
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "drop_path": 0.1,
    "epochs": 300,
    "min_lr_share": 0.01,
    "warmup_epochs": 5,
    "warmup_lr_share": 1e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "grad_clip": 0.0,
    "ema_decay": 0.99996,
}

SMALL_DATA: dict[str, Any] = {
    "mixup": 1.0,
    "cutmix": 1.0,
    "mix_probability": 0.5,
    "erasing": 0.25,
    "drop_path": 0.1,
    "epochs": 100,
    "lr": 1e-3,
    "min_lr_share": 0.01,
    "warmup_epochs": 10,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "grad_clip": 0.0,
}

RECIPES = {
    "quick": "for a first answer: crops, mirrors or shifts, label smoothing and clipping; 8 to 20 epochs",
    "deit": "DeiT's, arXiv 2012.12877: RandAugment, colour jitter, mixup, CutMix, erasing, drop path, EMA; 300 epochs",
    "small_data": "for CIFAR and Tiny-ImageNet, after SPT_LSA, arXiv 2112.13492: AutoAugment, mixup, CutMix, erasing; "
    "100 epochs",
}
"""Name to what it is. Of `quick`, weight decay and label smoothing are DeiT's; warm-up and clipping are ours, for short
runs. `deit` and `small_data` have the values of the arguments of their authors' code (main.py of facebookresearch/deit
and of aanna0701/SPT_LSA_ViT), but for these: colour jitter, which DeiT's code asks for and timm's loader leaves out
beside RandAugment; mixing by sample, where DeiT mixes a batch in one way; torchvision's RandAugment, where timm's
increases with its magnitude; and the largest erased area, a third of an image, which SPT_LSA has at 0.4."""

DEIT_LR, DEIT_LR_BATCH = 5e-4, 512
"""DeiT's learning rate is proportional to the batch."""

REPEATS = 3
"""Of repeated augmentation, in both; for streamed images, since decoding them is what it saves."""


def recipe_fields(recipe: str) -> dict[str, Any]:
    """Return the fields that a recipe has on all data alike.

    Raises:
        UsageError: no such recipe.
    """
    if recipe not in RECIPES:
        raise UsageError(str(unknown_name("recipe", recipe, list(RECIPES))))
    return {"quick": QUICK, "deit": DEIT, "small_data": SMALL_DATA}[recipe]


def defaults(
    *, image_side: int, flips: bool, recipe: str = "quick", streamed: bool = False, batch_size: int | None = None
) -> dict[str, Any]:
    """Return a value for every field of a cell that a data set decides.

    Args:
        image_side: pixels of the shorter side.
        flips: whether an image mirrored left to right still shows the same class.
        recipe: one of `RECIPES`.
        streamed: whether images are decoded as they are needed.
        batch_size: asked for; None: not.

    Raises:
        UsageError: no such recipe.

    >>> values = defaults(image_side=32, flips=True)
    >>> values["model"], values["patch"], values["augment"]
    ('ufo_vit_nano', 4, 'crop_flip')
    """
    small: dict[str, Any] = {"model": "ufo_vit_pico", "epochs": 8, "batch_size": 64, "lr": 4e-3}
    middle: dict[str, Any] = {"model": "ufo_vit_nano", "epochs": 20, "batch_size": 128, "lr": 3e-3}
    large: dict[str, Any] = {"model": "ufo_vit_s", "epochs": 20, "batch_size": 128, "lr": 1e-3}
    sized = small if image_side <= 16 else middle if image_side <= 96 else large
    augment = "crop_flip" if flips else "shift"
    own: dict[str, Any] = {"repeats": REPEATS} if recipe != "quick" and streamed else {}
    if recipe == "deit":
        augment = "resized_crop_flip" if flips else "shift"
        own["lr"] = DEIT_LR * (batch_size or sized["batch_size"]) / DEIT_LR_BATCH
    elif recipe == "small_data":
        own["policy"] = "auto_augment_cifar" if image_side <= 32 else "auto_augment"
    return {**sized, **recipe_fields(recipe), **own, "patch": default_patch(image_side), "augment": augment}


def default_patch(image_side: int) -> int:
    """Return the power of two that makes about 8 x 8 tokens, from 2 to 16 px.

    >>> [default_patch(side) for side in (8, 32, 64, 224)]
    [2, 4, 8, 16]
    """
    return min(16, max(2, 2 ** int(math.log2(image_side / 8)))) if image_side > 8 else 2
