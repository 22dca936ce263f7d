"""A cell: one training run, complete before it starts, and its identity."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Task = Literal["classify", "detect"]

JOINT = "+"
"""Joins numbers that are one value; a comma parts the values of an axis."""


def _as_numbers(value: Any) -> Any:
    """Write one number as the one text that means it, and several in their order."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not re.fullmatch(r" *[0-9]+ *(\+ *[0-9]+ *)*", value):
        return value
    return JOINT.join(str(number) for number in sorted({int(part) for part in value.split(JOINT)}))


Numbers = Annotated[
    str, BeforeValidator(_as_numbers), StringConstraints(pattern=r"^[1-9][0-9]{0,8}(\+[1-9][0-9]{0,8})*$")
]
"""Whole numbers above 0 in their order, joined by plus signs."""

COSINE = "cosine"

Schedule = Annotated[
    str, BeforeValidator(_as_numbers), StringConstraints(pattern=r"^(cosine|[1-9][0-9]{0,8}(\+[1-9][0-9]{0,8})*)$")
]
"""``cosine``, or epochs joined by plus signs."""

CLASS_JOINT = "+"
"""Joins the names of several classes; a comma parts the values of an axis."""


def _as_classes(value: Any) -> Any:
    """Write a number, or a list of names, as the one text that means it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(CLASS_JOINT)]
    return CLASS_JOINT.join(sorted(set(names))) if all(names) else value


Classes = Annotated[
    str, BeforeValidator(_as_classes), StringConstraints(pattern=r"^(0*[1-9][0-9]*|[^+]+(\+[^+]+)+)$", max_length=10**6)
]
"""How many classes, or their names, in their order and joined by plus signs."""

ID_LENGTH = 10
"""Hexadecimal digits of a cell's id: 40 bits, so that 10,000 cells collide with probability 5e-5."""


NEVER_ASKED = ("data_fingerprint", "streamed", "smoke", "scored_on", "init")
"""Fields that follow from what else is asked for."""


class CellConfig(BaseModel):
    """Everything that can change a cell's result, and nothing else: no path, no worker count, no logging.

    A field that is left at its default does not enter the id, so a field that comes later, with the default that
    means "as before", leaves old ids as they are. None means the named size's own value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: Task = "classify"
    """What is learnt of an image: its class, or the boxes, masks and classes of the objects in it."""

    # Data
    data: Name
    """Data set, as `list data` has it."""
    data_fingerprint: str
    image_size: Count | None = None
    """Pixels of the side to which images are resized and cropped, or shapes are drawn; None: as they are."""
    classes: Classes | None = None
    """Classes that are taken: how many, drawn with the split's own seed, or which; None: all of them."""
    streamed: bool = False
    """Whether images are decoded and cropped as they are needed, which gives other pixels than images in memory."""
    train_limit: Count | None = None
    """Number of training images, drawn once with the split's own seed; None: all of them."""
    augment: Literal["crop_flip", "shift", "none", "resized_crop_flip", "flip"]
    """Padded crops, or random resized crops, with flips; or half of the training images shifted by up to an eighth; or
    flips alone, as of images with objects."""
    policy: Literal["none", "rand_augment", "auto_augment", "auto_augment_cifar"] = "none"
    """Operations on each training image: RandAugment's, or AutoAugment's by ImageNet's or CIFAR-10's table."""
    policy_magnitude: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 9.0
    """Mean magnitude of RandAugment's operations, of 0 to 10."""
    policy_magnitude_std: NotNegative = 0.5
    """Its standard deviation; a magnitude is drawn for each operation."""
    policy_ops: Count = 2
    """Number of RandAugment's operations on an image."""
    color_jitter: NotNegative = 0.0
    """Largest change of brightness, contrast and saturation, as a share."""
    mixup: NotNegative = 0.0
    """Alpha of mixup's Beta distribution; 0: none."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix's; with mixup, each sample has one or the other."""
    mix_probability: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Probability that a sample is mixed with another."""
    erasing: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Probability that a rectangle of a training image becomes noise."""
    repeats: Count = 1
    """How often each sample of an epoch comes in it, augmented otherwise each time (arXiv 1901.09335)."""
    eval_crop: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the side of the centred square that evaluation sees of a streamed image."""

    # Net
    model: Name
    """Named size of UFO-ViT, as `list models` has it, or `timm:NAME`."""
    norm: Name
    """Attention normaliser, as `list norms` has it."""
    patch: Count
    """Pixels of a patch's side."""
    patch_embed: Literal["conv", "linear"] = "conv"
    """Stem: a stack of strided convolutions, or one linear projection of each patch."""
    lpi: bool | Literal["bn_first"] = True
    """Local patch interaction; ``bn_first``: with BatchNorm before GELU."""
    ff_ratio: Annotated[int, Field(ge=0, le=64)] = 4
    """Hidden width of the feed-forwards as a multiple of the embedding's; 0: none."""
    pos_embed: Literal["learned", "sincos", "none"] = "learned"
    """Positions: a learned table, fixed sines and cosines, or none."""
    class_attention: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Number of class attention blocks; 0: the mean of the tokens is classified; None: the model's own."""
    class_norm: Literal["same", "softmax"] = "same"
    """What normalises class attention: the cell's normaliser, or softmax."""
    layer_scale: NotNegative | None = None
    """Initial value of LayerScale; None: the model's own."""
    scale: Literal["own", "matched"] = "own"
    """Whether every attention output starts with the RMS that xnorm's has (`ufo.scale`), or with its normaliser's."""
    drop_path: Share = 0.0
    """Probability that a sample skips a residual branch."""
    depth: Layers | None = None
    """Number of blocks over the patches; None: the model's own."""
    embed_dim: Count | None = None
    """Width of the tokens; None: the model's own."""
    attn_dim: Count | None = None
    """Width of queries, keys and values, over all heads; None: the model's own."""
    num_heads: Count | None = None
    """Attention heads; None: the model's own."""
    change: Annotated[str, StringConstraints(pattern=r"^(none|[a-z_]+=[^,\s]+)$")] = "none"
    """``FIELD=VALUE``: one field of the net that this cell has otherwise (`ablations.config.change`)."""

    # Detection
    train_sides: Numbers = "800"
    """Pixels of a training image's shorter side; of several each image is given one, drawn anew in each epoch."""
    eval_side: Count = 800
    """Pixels of an evaluated image's shorter side."""
    longest_side: Count = 1333
    """Most pixels of a longer side, for which the shorter yields."""
    batch_norm: Literal["frozen", "sync"] = "frozen"
    """BatchNorms of the backbone: they keep their statistics and factors, or take those of the batch."""
    fpn_dim: Count = 256
    """Width of the feature pyramid."""
    box_dim: Count = 1024
    """Width of the box head."""
    mask_dim: Count = 256
    """Width of the mask head."""
    anchor_scale: Positive = 8.0
    """Side of an anchor as a multiple of its map's stride."""
    proposals: Count = 1000
    """Proposals kept of an image; in training twice as many."""
    rois: Count = 512
    """Of these the ones that the heads are trained on."""
    most_found: Count = 100
    """Most objects that are found in an image."""
    init: Name = "none"
    """Hash of the classifier's weights that the backbone starts from."""

    # Recipe
    epochs: Count
    """Passes over the training images."""
    batch_size: Count
    """Images of a batch."""
    lr: Positive
    """Peak learning rate of AdamW."""
    min_lr_share: Annotated[float, Field(ge=0, le=1)]
    """Learning rate at the end of the cosine, as a share of the peak."""
    warmup_epochs: Annotated[int, Field(ge=0)]
    """Epochs in which the learning rate rises."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps, after those epochs, in which it still rises."""
    warmup_lr_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate from which the warm-up rises, as a share of the peak."""
    schedule: Schedule = COSINE
    """How the learning rate falls after the warm-up: a cosine, or to a tenth after each of these epochs."""
    weight_decay: NotNegative
    """AdamW's weight decay, of matrices alone."""
    label_smoothing: Share
    """Share of each label that is spread over all classes."""
    grad_clip: NotNegative
    """Largest norm of the gradient; 0: not clipped."""
    ema_decay: Share = 0.0
    """Decay of the moving average of the weights that is evaluated in their place; 0: the weights themselves are."""

    # Run
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """float32, or autocast to bfloat16 or (on a GPU) float16."""
    compile: bool = False
    """Whether training steps go through torch.compile, which gives other last bits."""
    threads_per_cell: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads: another count gives other last bits."""
    smoke: bool = False
    """A smoke run is never judged as not learning."""
    scored_on: Literal["test", "val"] = "test"
    """Split on which it is scored in the end; a tuning's trials have validation, and never read the test split."""
    seed: Annotated[int, Field(ge=0)]
    """Keys every random stream: weights, order, augmentation."""

    @property
    def id(self) -> str:
        """Hash of what can change the result: the data's kind and fingerprint, not the name of its folder."""
        identity = self.model_dump(mode="json", exclude_defaults=True)
        identity["data"] = self.data.partition(":")[0]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def first_error(error: ValidationError) -> str:
    """Say in one line what does not fit: the field, its value and why."""
    where = ".".join(str(part) for part in error.errors()[0]["loc"])
    value = reprlib.repr(error.errors()[0].get("input"))
    return f"{where}: {value} does not fit, {message_of(error)}" if where else message_of(error)


def message_of(error: ValidationError) -> str:
    """Say why a value does not fit: every reason, where it could be one of several things."""
    messages = dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in error.errors())
    return ", or ".join(message[0].lower() + message[1:] for message in messages)
