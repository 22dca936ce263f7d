"""The fields of a cell in groups. Each is defined here and nowhere else: type, range, default, traits, description.

Listings, checks, command-line options, one-change arms, estimates and documentation derive from these definitions.
A field at its default does not enter a cell's id: give a new field the default that means "as before". None as a
default means the value of the named model, or no limit.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ablations.config.traits import AUTOCAST, COSINE_SCHEDULE, MASKS, MIXING, RAND_AUGMENT, STREAMED, WARMUP, Traits
from ablations.config.types import (
    COSINE,
    Classes,
    Count,
    Layers,
    Name,
    NotNegative,
    NotNegativeCount,
    Numbers,
    Positive,
    PositiveShare,
    Probability,
    Schedule,
    Share,
    join_classes,
    matching,
)

CLASSIFIERS = Traits(tasks=("classify",))
DETECTORS = Traits(tasks=("detect",))
POLICY = Traits(tasks=("classify",), effect=RAND_AUGMENT)
UFO = Traits(ufo_only=True)
UFO_PART = Traits(ufo_only=True, one_change=True)
CLASS_ATTENTION = Traits(tasks=("classify",), ufo_only=True, one_change=True)
DERIVED = Traits(is_derived=True)
NO_TIME = Traits(costs_time=False)
FLAG = Traits(has_flag=True)


class Group(BaseModel):
    """A group of fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Images(Group):
    """The images of a cell."""

    data: Annotated[Name, Traits(selects_data=True, has_flag=True)]
    """Data set, one of `list data`."""
    data_fingerprint: Annotated[str, DERIVED]
    image_size: Annotated[Count | None, Traits(selects_data=True, searchable=False)] = None
    """Side in pixels to which images are resized and cropped, or at which shapes are drawn; None: their own size."""
    classes: Annotated[
        Classes | None, Traits(tasks=("classify",), selects_data=True, has_flag=True, joins=join_classes)
    ] = None
    """Number of classes, drawn with the seed of the split, or their names; None: all."""
    streamed: Annotated[bool, DERIVED] = False
    """Whether images are decoded and cropped when needed, which gives other pixels than images in memory."""
    train_limit: Annotated[Count | None, NO_TIME] = None
    """Number of training images, drawn with the seed of the split; None: all."""
    eval_limit: Annotated[Count | None, Traits(searchable=False)] = None
    """Largest number of images of validation, and of test, drawn with the seed of the split; None: all."""


class Augmentation(Group):
    """What happens to the images before the net sees them."""

    augment: Annotated[
        Literal["crop_flip", "shift", "none", "resized_crop_flip", "flip"],
        Traits(
            choices={
                "classify": ("crop_flip", "shift", "none", "resized_crop_flip"),
                "detect": ("flip", "none"),
            }
        ),
    ]
    """Padded or random resized crops with flips; shifts of half of the images by up to an eighth; or flips only."""
    policy: Annotated[Literal["none", "rand_augment", "auto_augment", "auto_augment_cifar"], CLASSIFIERS] = "none"
    """Operations on each training image: RandAugment, or AutoAugment with the table for ImageNet or for CIFAR-10."""
    policy_magnitude: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False), POLICY] = 9.0
    """Mean magnitude of RandAugment's operations."""
    policy_magnitude_std: Annotated[NotNegative, POLICY] = 0.5
    """Standard deviation of that magnitude, which is drawn for each operation."""
    policy_ops: Annotated[Count, POLICY] = 2
    """Number of RandAugment's operations on an image."""
    color_jitter: Annotated[NotNegative, CLASSIFIERS] = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    mixup: Annotated[NotNegative, CLASSIFIERS] = 0.0
    """Alpha of mixup's Beta distribution; 0: no mixup."""
    cutmix: Annotated[NotNegative, CLASSIFIERS] = 0.0
    """Alpha of CutMix's Beta distribution; with mixup, each sample has one of the two."""
    mix_probability: Annotated[PositiveShare, Traits(tasks=("classify",), effect=MIXING)] = 1.0
    """Probability that a sample is mixed with another."""
    erasing: Annotated[Probability, CLASSIFIERS] = 0.0
    """Probability that a rectangle of a training image is replaced by noise."""
    repeats: Annotated[Count, CLASSIFIERS] = 1
    """Number of differently augmented copies of each sample in an epoch (arXiv 1901.09335)."""
    eval_crop: Annotated[PositiveShare, Traits(tasks=("classify",), effect=STREAMED)] = 1.0
    """Side of the centre crop in evaluation, relative to the image's."""


class Net(Group):
    """The net."""

    model: Annotated[Name, FLAG]
    """Named size of UFO-ViT, one of `list models`, or `timm:NAME`."""
    norm: Annotated[Name, Traits(ufo_only=True, has_flag=True, costs_time=False)]
    """Attention normaliser, one of `list norms`."""
    patch: Annotated[Count, UFO_PART]
    """Side of a patch in pixels."""
    patch_embed: Annotated[Literal["conv", "linear"], UFO_PART] = "conv"
    """Stem: strided convolutions, or one linear projection of each patch."""
    lpi: Annotated[bool | Literal["bn_first"], UFO_PART] = True
    """Local patch interaction; ``bn_first``: with BatchNorm before GELU."""
    ff_ratio: Annotated[int, Field(ge=0, le=64), UFO_PART] = 4
    """Hidden width of the feed-forward layers as a multiple of the embedding width; 0: no feed-forward layers."""
    pos_embed: Annotated[Literal["learned", "sincos", "none"], UFO_PART] = "learned"
    """Position embedding: a learned table, fixed sines and cosines, or none."""
    class_attention: Annotated[Annotated[int, Field(ge=0, le=1000)] | None, CLASS_ATTENTION] = None
    """Number of class attention blocks; 0: the mean of the tokens is classified; None: the model's own."""
    class_norm: Annotated[Literal["same", "softmax"], CLASS_ATTENTION] = "same"
    """Normaliser of class attention: the cell's own, or softmax."""
    layer_scale: Annotated[NotNegative | None, UFO_PART] = None
    """Initial value of LayerScale; None: the model's own."""
    scale: Annotated[Literal["own", "matched"], Traits(ufo_only=True, has_flag=True)] = "own"
    """Initial scale of every attention output: that of its normaliser, or matched to xnorm's RMS (`ufo.scale`)."""
    output_gate: Annotated[bool, UFO_PART] = False
    """Whether a sigmoid gate of the block's input multiplies every attention output (`ufo.attention`)."""
    drop_path: Share = 0.0
    """Probability that a sample skips a residual branch."""
    depth: Annotated[Layers | None, UFO_PART] = None
    """Number of blocks over the patches; None: the model's own."""
    embed_dim: Annotated[Count | None, UFO_PART] = None
    """Width of the tokens; None: the model's own."""
    attn_dim: Annotated[Count | None, UFO_PART] = None
    """Width of queries, keys and values over all heads; None: the model's own."""
    num_heads: Annotated[Count | None, UFO_PART] = None
    """Number of attention heads; None: the model's own."""
    change: Annotated[str, matching(r"none|[a-z_]+=[^,\s]+", "none or FIELD=VALUE"), UFO] = "none"
    """``FIELD=VALUE``: one field of the net that differs in this cell; for --compare change."""


class Detection(Group):
    """Images and heads of a detector."""

    masks: Annotated[bool, DETECTORS] = True
    """Whether objects are found with their masks (Mask R-CNN), or only with their boxes (Faster R-CNN)."""
    train_sides: Annotated[Numbers, DETECTORS] = "800"
    """Shorter side of a training image in pixels; if several are given, one is drawn per image and epoch."""
    eval_side: Annotated[Count, DETECTORS] = 800
    """Shorter side of an evaluated image in pixels."""
    longest_side: Annotated[Count, DETECTORS] = 1333
    """Largest longer side in pixels; a shorter side that would exceed it is reduced."""
    batch_norm: Annotated[Literal["frozen", "sync"], DETECTORS] = "frozen"
    """BatchNorm layers of the backbone: frozen statistics and factors, or those of the batch."""
    fpn_dim: Annotated[Count, DETECTORS] = 256
    """Width of the feature pyramid."""
    box_dim: Annotated[Count, DETECTORS] = 1024
    """Width of the box head."""
    mask_dim: Annotated[Count, Traits(tasks=("detect",), effect=MASKS)] = 256
    """Width of the mask head."""
    anchor_scale: Annotated[Positive, DETECTORS] = 8.0
    """Side of an anchor as a multiple of its feature map's stride."""
    proposals: Annotated[Count, DETECTORS] = 1000
    """Number of proposals kept per image; twice as many in training."""
    rois: Annotated[Count, DETECTORS] = 512
    """Number of proposals per image that the heads are trained on."""
    most_found: Annotated[Count, DETECTORS] = 100
    """Largest number of objects found in an image."""
    init: Annotated[Name, Traits(tasks=("detect",), is_derived=True)] = "none"
    """Hash of the classifier weights that the backbone starts from."""


class Optimisation(Group):
    """Epochs, batches, optimiser and schedule."""

    epochs: Annotated[Count, Traits(has_flag=True, costs_time=False)]
    """Number of passes over the training images."""
    batch_size: Annotated[Count, FLAG]
    """Number of images in a batch."""
    lr: Annotated[Positive, Traits(has_flag=True, costs_time=False)]
    """Peak learning rate of AdamW."""
    min_lr_share: Annotated[Probability, Traits(effect=COSINE_SCHEDULE, costs_time=False)]
    """Learning rate at the end of the cosine, relative to the peak."""
    warmup_epochs: Annotated[NotNegativeCount, NO_TIME]
    """Number of epochs in which the learning rate rises."""
    warmup_steps: Annotated[NotNegativeCount, NO_TIME] = 0
    """Number of further steps in which the learning rate rises."""
    warmup_lr_share: Annotated[Probability, Traits(effect=WARMUP)] = 0.0
    """Learning rate at the start of the warm-up, relative to the peak."""
    schedule: Annotated[Schedule, NO_TIME] = COSINE
    """Decay of the learning rate after the warm-up: a cosine, or a factor of 0.1 after each of these epochs."""
    weight_decay: Annotated[NotNegative, NO_TIME]
    """Weight decay of AdamW, applied to weight matrices only."""
    label_smoothing: Annotated[Share, Traits(tasks=("classify",), costs_time=False)]
    """Share of each label that is spread over all classes."""
    grad_clip: NotNegative
    """Largest norm of the gradient; 0: no clipping."""
    ema_decay: Share = 0.0
    """Decay of the moving average of the weights, which is evaluated in their place; 0: no moving average."""


class Run(Group):
    """How a cell is computed and scored."""

    precision: Annotated[Literal["32-true", "tf32", "bf16-mixed", "16-mixed"], FLAG] = "32-true"
    """float32; on CUDA also float32 with products in TF32; autocast to bfloat16 or, on a GPU, to float16."""
    core_precision: Annotated[Literal["own", "float32"], Traits(ufo_only=True, effect=AUTOCAST)] = "own"
    """Attention cores, from q, k and v to the normaliser's output: in the cell's own precision, or in float32."""
    deterministic: bool = False
    """Whether CUDA may use only deterministic operations, so that two runs give the same bits, as on a CPU."""
    cudnn_benchmark: bool = False
    """Whether cuDNN times its convolutions and takes the fastest, so that two runs may differ in the last bits."""
    compile: Annotated[bool, CLASSIFIERS] = False
    """Whether training steps use torch.compile, which changes the last bits."""
    cuda_graph: Annotated[bool, CLASSIFIERS] = False
    """Whether CUDA runs a whole training step as one captured graph, which changes the last bits."""
    stack: Annotated[
        int, Field(ge=1, le=1000), Traits(tasks=("classify",), ufo_only=True, has_flag=True, searchable=False)
    ] = 1
    """Largest number of seeds of an arm that are trained together as one batched net, which changes the last bits."""
    threads_per_cell: Annotated[int, Field(ge=1, le=1024), Traits(searchable=False)] = 1
    """Number of CPU threads; another number changes the last bits."""
    smoke: Annotated[bool, DERIVED] = False
    """Whether this is a smoke run, which is never judged as not learning."""
    scored_on: Annotated[Literal["test", "val"], DERIVED] = "test"
    """Split of the final score: test, or validation for the trials of a tuning, which never read the test split."""
