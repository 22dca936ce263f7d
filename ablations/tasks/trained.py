"""Weights of a trained cell: saved to a file, and loaded into a module."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ablations.config import CellConfig, UsageError
from ablations.tasks.classify import Classifier
from ablations.training.module import CellModule

WEIGHTS = "weights.safetensors"
"""File of weights in a cell's folder."""


def save_weights(module: CellModule, folder: Path) -> None:
    """Save a module's weights to its cell's folder, with the module's arguments."""
    tensors = {name: tensor.contiguous() for name, tensor in module.net.state_dict().items()}
    made_from = {name: value for name, value in module.hparams.items() if name != "config"}
    metadata = {"config": module.config.model_dump_json(), "made_from": json.dumps(made_from)}
    save_file(tensors, folder / WEIGHTS, metadata=metadata)


def load_module(folder: Path) -> CellModule:
    """Load the module of a trained cell, in evaluation mode.

    Args:
        folder: folder of the cell.

    Raises:
        UsageError: weights that were not saved, or cannot be read.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise UsageError(f"{folder.name} has no {WEIGHTS}: run it with --save-weights last")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        made_from = json.loads(metadata["made_from"])  # missing in files of version 0.1
        config = CellConfig.model_validate_json(metadata["config"]).model_copy(update={"init": "none"})
        module: CellModule
        if config.task == "detect":
            from ablations.tasks.detect.detector import Detector

            module = Detector(config, **made_from)
        else:
            made_from["image_shape"] = tuple(made_from["image_shape"])
            module = Classifier(config, **made_from)
        module.net.load_state_dict(load_file(path))
    except KeyError as error:
        raise UsageError(f"{path} lacks the module's arguments, as in version 0.1; run the cell again") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}") from error
    return module.eval()
