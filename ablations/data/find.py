"""Data sets by their names on the command line."""

from __future__ import annotations

from pathlib import Path

from ablations.config import UsageError
from ablations.config.escape import is_readable, visible
from ablations.config.paths import real_path
from ablations.config.types import Task
from ablations.data.folder import image_folder
from ablations.data.objects.shapes import SIDE, Shapes
from ablations.data.objects.source import Coco, ObjectSource
from ablations.data.sources import Cifar, Digits, Source
from ablations.data.tiny_imagenet import tiny_imagenet
from ufo.registry import unknown_name

DATA_SETS = {
    "digits": "scikit-learn's digits: 1,797 greyscale images of 8 x 8 px, 10 classes; 360 are the test split",
    "cifar10": "CIFAR-10 as torchvision stores it, under --data-root: 32 x 32 px, 10 classes",
    "cifar100": "CIFAR-100 as torchvision stores it, under --data-root: 32 x 32 px, 100 classes",
    "imagefolder:DIR": "a folder with train/ and val/ or test/, one folder of images for each class",
    "imagenet:DIR": "ImageNet-1k, or as large: train/ and val/ with class folders; 224 px; streamed, unless it fits",
    "coco:DIR": "for --task detect: COCO in its own layout, annotations/instances_*.json and folders of images",
    "shapes": "for --task detect: circles, rectangles and triangles that overlap; 1,300 images of 128 x 128 px, drawn",
    "tiny-imagenet:DIR": "Tiny-ImageNet in its own layout: wnids.txt, words.txt, train/, val/; 64 x 64 px, 200 classes",
}
"""Name on the command line to description."""

FOLDERS = tuple(name.partition(":")[0] for name in DATA_SETS if ":" in name)
"""Kinds that need a folder."""

TORCHVISION = "; torchvision's files belong under --data-root"

OBJECTS = ("coco", "shapes")
"""Kinds whose images have annotated objects."""

OWN_SIZE = {"imagenet": 224}
"""Default image size of a kind, in pixels; images of other kinds keep their size."""


def find_source(
    spec: str, *, data_root: Path, download: bool, image_size: int | None, classes: str | None = None
) -> Source:
    """Find a data set by its name on the command line.

    Args:
        spec: name in `DATA_SETS`, followed by the folder if the kind needs one.
        data_root: folder of torchvision's data sets.
        download: whether a missing data set may be downloaded.
        image_size: side to which images are resized and cropped, in pixels; None: unchanged.
        classes: selection of classes, as in `choose_classes`; None: all.

    Raises:
        UsageError: unknown name, missing data, or a data set for detection.
    """
    kind, root = _parse(spec, task="classify")
    if root is not None:
        if kind == "tiny-imagenet":
            return tiny_imagenet(root, image_size=image_size, classes=classes)
        by_contents = kind == "imagefolder"
        return image_folder(root, kind=kind, image_size=image_size, classes=classes, by_contents=by_contents)
    for field, value in (("image_size", image_size), ("classes", classes)):
        if value is not None:
            folders = [name for name in FOLDERS if name not in OBJECTS]
            raise UsageError(f"{field} does not apply to '{kind}', only to {', '.join(folders)}; omit it")
    return Digits() if kind == "digits" else Cifar(kind, root=data_root, download=download)


def find_objects(spec: str, *, image_size: int | None) -> ObjectSource:
    """Find a detection data set by its name on the command line.

    Args:
        spec: name in `OBJECTS`; ``coco`` is followed by its folder.
        image_size: side of drawn images, in pixels; None: the default.

    Raises:
        UsageError: unknown name, missing data, or a data set for classification.
    """
    _, root = _parse(spec, task="detect")
    if root is None:
        return Shapes(SIDE if image_size is None else image_size)
    if image_size is not None:
        raise UsageError("image_size does not apply to coco, whose images differ in size; set train_sides, eval_side")
    return Coco(root)


def _parse(spec: str, *, task: Task) -> tuple[str, Path | None]:
    """Return the kind of a data set, and its folder if it needs one."""
    kind, colon, place = spec.partition(":")
    valid = [name.partition(":")[0] for name in DATA_SETS]
    if kind not in valid:
        raise UsageError(str(unknown_name("data set", kind, valid)))
    if (kind in OBJECTS) != (task == "detect"):
        other = "detect" if kind in OBJECTS else "classify"
        fitting = [name for name in valid if (name in OBJECTS) == (task == "detect")]
        raise UsageError(f"--data {kind} is for --task {other}; for --task {task} choose from {', '.join(fitting)}")
    if kind not in FOLDERS:
        if colon:
            raise UsageError(f"data set '{kind}' takes no folder{'' if kind in OBJECTS else TORCHVISION}")
        return kind, None
    if not place:
        raise UsageError(f"{kind} needs a folder: --data {kind}:DIR")
    try:
        root = Path(place).expanduser()
        whole = str(real_path(root))
    except RuntimeError as error:  # ~name of an unknown user
        raise UsageError(f"no folder {place}: {error}") from error
    if not is_readable(whole):
        raise UsageError(f"the folder name {visible(whole)} cannot be decoded as text; rename it")
    return kind, root
