"""Named recipes: default values of the fields of a cell, for each kind of data."""

from __future__ import annotations

import math
from typing import Any

from ablations.config import UsageError
from ablations.config.types import Task
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

DETECT_1X: dict[str, Any] = {
    "epochs": 12,
    "schedule": "8+11",
    "batch_size": 16,
    "lr": 1e-4,
    "min_lr_share": 0.0,
    "warmup_epochs": 0,
    "warmup_steps": 500,
    "warmup_lr_share": 1e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.0,
    "grad_clip": 0.0,
}

DETECT_3X: dict[str, Any] = {**DETECT_1X, "epochs": 36, "schedule": "27+33"}

TRAIN_SIDES = {"quick": "800", "1x": "800", "3x": "+".join(str(side) for side in range(480, 801, 32))}
"""Sides of photographs in training in pixels, for each recipe of detectors."""

RECIPES = {
    "quick": "for first results: crops and flips, or shifts; label smoothing, gradient clipping; 8 to 20 epochs",
    "deit": "DeiT, arXiv 2012.12877: RandAugment, colour jitter, mixup, CutMix, erasing, drop path, EMA; 300 epochs",
    "small_data": "for CIFAR and Tiny-ImageNet, after SPT_LSA, arXiv 2112.13492: AutoAugment, mixup, CutMix, erasing; "
    "100 epochs",
    "1x": "Mask R-CNN, arXiv 1703.06870: 12 epochs at one scale; AdamW as in XCiT's detectors, arXiv 2106.09681",
    "3x": "as 1x, but 36 epochs at scales of 480 to 800 px, as in XCiT's detectors",
}
"""Description of each recipe. `quick`: weight decay and label smoothing are DeiT's; warm-up and clipping are ours for
short runs. `deit` and `small_data` have the argument values of their authors' code (main.py of facebookresearch/deit
and of aanna0701/SPT_LSA_ViT). Differs from that code: colour jitter is applied with RandAugment, where timm's loader
leaves it out; samples are mixed one by one, where DeiT mixes a batch in one way; RandAugment is torchvision's, where
timm's increases with its magnitude; the largest erased area is a third of an image, where SPT_LSA has 0.4.

`1x` and `3x` have the values of XCiT's detection code (detection/configs of facebookresearch/xcit). Differs from that
code: no random crops; no drop path, where a small net has 0.05; twice as many proposals in training as in evaluation,
where XCiT has 1,000; a batch of 16 images, as in Mask R-CNN, where XCiT's depends on the number of GPUs."""

FOR_TASK: dict[Task, tuple[str, ...]] = {"classify": ("quick", "deit", "small_data"), "detect": ("quick", "1x", "3x")}
"""Recipes of each task, its default first."""

MAX_SMALL_SIDE = 256
"""Largest image side in pixels for which the small detector is the default."""

DEIT_LR, DEIT_LR_BATCH = 5e-4, 512
"""DeiT's learning rate and its batch size: the rate is proportional to the batch size."""

REPEATS = 3
"""Copies of a sample in `deit` and `small_data`, for streamed images only: repeated augmentation saves decoding."""


def recipe_fields(recipe: str, task: Task = "classify") -> dict[str, Any]:
    """Return the fields that a recipe sets on all data.

    Raises:
        UsageError: an unknown recipe, or one that does not apply to the task.
    """
    if recipe not in RECIPES:
        raise UsageError(str(unknown_name("recipe", recipe, list(RECIPES))))
    if recipe not in FOR_TASK[task]:
        raise UsageError(f"recipe {recipe} does not apply to --task {task}; give {', '.join(FOR_TASK[task])}")
    if recipe == "quick" and task == "detect":
        return {**QUICK, "label_smoothing": 0.0}
    return {"quick": QUICK, "deit": DEIT, "small_data": SMALL_DATA, "1x": DETECT_1X, "3x": DETECT_3X}[recipe]


def defaults(
    *,
    image_side: int,
    flips: bool,
    task: Task = "classify",
    recipe: str = "quick",
    streamed: bool = False,
    batch_size: int | None = None,
    from_weights: bool = False,
    masks: bool = True,
) -> dict[str, Any]:
    """Return a value for every field of a cell that depends on the data set.

    Args:
        image_side: shorter side of the images in pixels.
        flips: whether a horizontal flip preserves the class of an image.
        task: task of the study.
        recipe: name of the recipe, one of `RECIPES`.
        streamed: whether images are decoded on demand.
        batch_size: batch size that the user gave; None: the default.
        from_weights: whether a detector's backbone starts from trained weights, whose BatchNorm statistics are kept.
        masks: whether a detector finds masks; without, the width of the mask head is none of its fields.

    Raises:
        UsageError: an unknown recipe, or one that does not apply to the task.

    >>> values = defaults(image_side=32, flips=True)
    >>> values["model"], values["patch"], values["augment"]
    ('ufo_vit_nano', 4, 'crop_flip')
    """
    small: dict[str, Any] = {"model": "ufo_vit_pico", "epochs": 8, "batch_size": 64, "lr": 4e-3}
    middle: dict[str, Any] = {"model": "ufo_vit_nano", "epochs": 20, "batch_size": 128, "lr": 3e-3}
    large: dict[str, Any] = {"model": "ufo_vit_s", "epochs": 20, "batch_size": 128, "lr": 1e-3}
    if task == "detect":
        own = _detection(image_side, recipe, batch_norm="frozen" if from_weights else "sync")
        return own if masks else {name: value for name, value in own.items() if name != "mask_dim"}
    sized = small if image_side <= 16 else middle if image_side <= 96 else large
    augment = "crop_flip" if flips else "shift"
    own = {"repeats": REPEATS} if recipe != "quick" and streamed else {}
    if recipe == "deit":
        augment = "resized_crop_flip" if flips else "shift"
        own["lr"] = DEIT_LR * (batch_size or sized["batch_size"]) / DEIT_LR_BATCH
    elif recipe == "small_data":
        own["policy"] = "auto_augment_cifar" if image_side <= 32 else "auto_augment"
    return {**sized, **recipe_fields(recipe), **own, "patch": default_patch(image_side), "augment": augment}


def _detection(image_side: int, recipe: str, *, batch_norm: str) -> dict[str, Any]:
    """Return the defaults of a detector: for small images a small net with narrow heads and small anchors."""
    small: dict[str, Any] = {
        "model": "ufo_vit_nano",
        "patch": 4,
        "epochs": 4,
        "batch_size": 4,
        "lr": 1e-3,
        "fpn_dim": 64,
        "box_dim": 128,
        "mask_dim": 64,
        "anchor_scale": 4.0,
        "proposals": 200,
        "rois": 64,
        "most_found": 20,
        "train_sides": "+".join(str(image_side * share // 8) for share in (7, 8)),
        "eval_side": image_side,
        "longest_side": 2 * image_side,
    }
    large: dict[str, Any] = {"model": "ufo_vit_s", "patch": 16, "epochs": 12, "batch_size": 16, "lr": 1e-4}
    recipe_own = recipe_fields(recipe, "detect")
    sized = small if image_side <= MAX_SMALL_SIDE else {**large, "train_sides": TRAIN_SIDES[recipe]}
    return {**sized, **recipe_own, "augment": "flip", "batch_norm": batch_norm}


def default_patch(image_side: int) -> int:
    """Return the patch side in pixels, a power of two from 2 to 16, that gives about 8 x 8 tokens.

    >>> [default_patch(side) for side in (8, 32, 64, 224)]
    [2, 4, 8, 16]
    """
    return min(16, max(2, 2 ** int(math.log2(image_side / 8)))) if image_side > 8 else 2
