"""From a cell to what it trains: its task's."""

from __future__ import annotations

from typing import Any

import torch

from ablations.data import DataInfo
from ablations.study import CellConfig
from ablations.tasks.classify import Classification
from ablations.tasks.task import Workload


def make_workload(
    config: CellConfig, info: DataInfo, *, device: torch.device, workers: int, weights: str = ""
) -> Workload[Any]:
    """Make a cell's data and net.

    Args:
        config: the cell.
        info: its data set, in the cache.
        device: of the batches.
        workers: processes that decode images that are not in memory; any number gives the same batches.
        weights: file of a classifier's, from which a detector's backbone starts; empty: from its seed's.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    if config.task == "detect":
        from ablations.tasks.detect.detector import Detection  # it takes torchvision's detectors half a second

        return Detection(config, info, device=device, workers=workers, weights=weights)
    return Classification(config, info, device=device, workers=workers)
