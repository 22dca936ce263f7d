"""Description of a data set that is decoded, or listed for streaming."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.types import Task


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

    @property
    def chance_pct(self) -> float:
        """Chance level in per cent: the accuracy of guessing, or the average precision without detections."""
        return 100 / len(self.classes) if self.task == "classify" else 0.0
