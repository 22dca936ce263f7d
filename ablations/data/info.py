"""Description of a data set that is decoded, or listed for streaming."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ablations.config.types import Task
from ablations.data.cached_files import reading


@dataclass(frozen=True)
class DataInfo:
    """Description of a prepared data set.

    Args:
        name: name in configurations, without a path.
        fingerprint: hash of the files.
        classes: class names, by label.
        image_shape: height, width and channels of the images.
        num_train: number of training images, without validation.
        num_val: number of validation images.
        num_test: number of test images.
        mean: mean of each channel over train, for pixels from 0 to 1.
        std: standard deviation of each channel over train, for pixels from 0 to 1.
        flips: whether a mirrored image keeps its class.
        notes: messages to the user about how the data set was read.
        streamed: whether images are decoded on demand instead of cached.
        root: folder of the images if they are streamed, else empty.
        placement: whether it is streamed, and why; empty if it cannot be.
        task: task of the data set.
    """

    name: str
    fingerprint: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    num_train: int
    num_val: int
    num_test: int
    mean: list[float]
    std: list[float]
    flips: bool
    notes: list[str]
    streamed: bool = False
    root: str = ""
    placement: str = ""
    task: Task = "classify"

    def save(self, folder: Path) -> None:
        """Write the description to a folder of the cache."""
        (folder / "info.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a description that `save` wrote.

        Raises:
            DamagedFile: it cannot be read.
        """
        path = folder / "info.json"
        with reading(path):
            fields = json.loads(path.read_text())
            return cls(**{**fields, "image_shape": tuple(fields["image_shape"])})

    @property
    def chance_pct(self) -> float:
        """Chance level in per cent: the accuracy of guessing, or the average precision without detections."""
        return 100 / len(self.classes) if self.task == "classify" else 0.0
