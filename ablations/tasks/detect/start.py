"""Initialisation of a detector's backbone from a classifier's weights."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ablations.config import CellConfig
from ablations.config.cell import FIELDS
from ablations.config.change import apply_change
from ablations.config.values import value_name
from ablations.tasks.detect.bodies import build_body
from ufo.detection import UFOBody, load_classifier

LOG = logging.getLogger(__name__)

READ_BY_BACKBONE = tuple(
    field.name
    for field in FIELDS.values()
    if field.traits.one_change and field.applies_to("detect") and field.name != "layer_scale"
)
"""Fields with which the same weights compute another function; LayerScale's values are among the weights."""


def read_classifier(path: Path) -> CellConfig:
    """Return the configuration of the cell that saved a file of weights.

    Raises:
        ValueError: another kind of file, or weights of another task.
        OSError: unreadable file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            held = CellConfig.model_validate_json((file.metadata() or {}).get("config", ""))
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a cell's weights file: {error}") from error
    if held.task != "classify":
        raise ValueError(f"{path.name} does not have a classifier's weights")
    return held


def start_body(config: CellConfig, path: Path) -> UFOBody:
    """Build a cell's body with a classifier's weights, and its positions for the classifier's image size.

    Raises:
        ValueError: classifier with another net, or with tensors that do not match the body's.
    """
    own, held = apply_change(config), apply_change(read_classifier(path))
    for field in ("model", "norm", *READ_BY_BACKBONE, "scale"):
        if (wanted := own[field]) != (has := held[field]):
            raise ValueError(f"{path} was trained with {field}={value_name(has)}, not {value_name(wanted)}")
    tensors = load_file(path)
    table = tensors.get("pos_embed")  # (1, H, W, C)
    size = None if table is None else (table.shape[1] * own.net.patch, table.shape[2] * own.net.patch)
    body = build_body(config, img_size=size)
    assert isinstance(body, UFOBody), "nets of other libraries start from their seeds"
    body.start = f"{config.net.norm} starts from {path}: {load_classifier(body, tensors)}"
    LOG.info("%s", body.start)
    return body
