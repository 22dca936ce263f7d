"""Construction of a cell's LightningModule."""

from __future__ import annotations

from ablations.config import CellConfig
from ablations.data import DataInfo
from ablations.tasks.classify import Classifier
from ablations.training.module import CellModule


def make_module(config: CellConfig, info: DataInfo, *, weights: str = "") -> CellModule:
    """Make the module of a cell, with initial weights.

    Args:
        config: configuration of the cell.
        info: data set of the cell.
        weights: file of classifier weights that a detector's backbone starts from; empty: initialise from the seed.

    Raises:
        ValueError: inconsistent sizes, or weights of another net.
    """
    num_classes = len(info.classes)
    if config.task == "detect":
        from ablations.tasks.detect.detector import Detector  # importing torchvision's detectors takes 0.5 s

        return Detector(config, num_classes=num_classes, mean=info.mean, std=info.std, weights=weights)
    return Classifier(config, image_shape=info.image_shape, num_classes=num_classes)
