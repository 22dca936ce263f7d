"""Data sets by their names on the command line."""

from __future__ import annotations

from pathlib import Path

from ablations.data.folder import ImageFolder
from ablations.data.sources import Cifar, Digits, Source
from ablations.study import UsageError
from ufo.registry import unknown_name

DATA_SETS = {
    "digits": "scikit-learn's digits: 1,797 greyscale images of 8 x 8 px, 10 classes; 360 are the test split",
    "cifar10": "CIFAR-10 as torchvision stores it, under --data-root: 32 x 32 px, 10 classes",
    "cifar100": "CIFAR-100 as torchvision stores it, under --data-root: 32 x 32 px, 100 classes",
    "imagefolder:DIR": "a folder with train/ and val/ or test/, one folder of images for each class",
}
"""Name on the command line to what it is."""


def find_source(spec: str, *, data_root: Path, download: bool, image_size: int | None) -> Source:
    """Find a data set by its name on the command line.

    Args:
        spec: a name of `DATA_SETS`; ``imagefolder:`` is followed by the folder.
        data_root: folder of torchvision's own files.
        download: whether a missing one may be fetched.
        image_size: pixels of the side to which images are resized and cropped; None: as they are.

    Raises:
        UsageError: an unknown name, or data that is not there.
    """
    kind, colon, folder = spec.partition(":")
    valid = [name.partition(":")[0] for name in DATA_SETS]
    if kind not in valid:
        raise UsageError(str(unknown_name("data set", kind, valid)))
    if kind == "imagefolder":
        if not folder:
            raise UsageError("imagefolder needs a folder: --data imagefolder:DIR")
        try:
            return ImageFolder(Path(folder).expanduser(), image_size=image_size)
        except RuntimeError as error:  # ~name of a user that there is not
            raise UsageError(f"no folder {folder}: {error}") from error
    if colon:
        raise UsageError(f"data set '{kind}' takes no folder; torchvision's files are looked for under --data-root")
    if image_size is not None:
        raise UsageError(f"image_size is for imagefolder; the images of '{kind}' have a size of their own")
    return Digits() if kind == "digits" else Cifar(kind, root=data_root, download=download)
