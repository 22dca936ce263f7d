"""What is known of a data set once it is decoded, or listed to be streamed."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.types import Task


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set.

    Args:
        name: as configurations have it, without a path.
        fingerprint: of the files.
        classes: class names, by label.
        image_shape: height, width, channels.
        num_train: training images, validation cut off.
        num_val: validation images.
        num_test: test images.
        mean: of each channel over train, of 0 to 1.
        std: of each channel over train.
        flips: whether a mirrored image still shows the same class.
        notes: what a user should know of how it was read.
        streamed: whether its images are decoded as they are needed, and not in the cache.
        root: folder of the images, where they are streamed.
        placement: whether it is streamed, and why; empty where that was never the question.
        task: that it is for.
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
        """What guessing is scored, in per cent: an accuracy, or the average precision of a net that finds nothing."""
        return 100 / len(self.classes) if self.task == "classify" else 0.0
