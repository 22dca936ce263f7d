"""From a cell to the LightningModule of its task."""

from __future__ import annotations

from ablations.config import CellConfig
from ablations.data import DataInfo
from ablations.tasks.classify import Classifier
from ablations.training.module import CellModule


def make_module(config: CellConfig, info: DataInfo, *, weights: str = "") -> CellModule:
    """Make a cell's module, with its first weights.

    Args:
        config: the cell.
        info: its data set.
        weights: file of a classifier's, from which a detector's backbone starts; empty: from its seed's.

    Raises:
        ValueError: sizes that do not fit each other, or weights that do not fit.
    """
    num_classes = len(info.classes)
    if config.task == "detect":
        from ablations.tasks.detect.detector import Detector  # it takes torchvision's detectors half a second

        return Detector(config, num_classes=num_classes, mean=info.mean, std=info.std, weights=weights)
    return Classifier(config, image_shape=info.image_shape, num_classes=num_classes)
