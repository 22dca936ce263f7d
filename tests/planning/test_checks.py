"""Fields that need CUDA, and fields that cannot be on together."""

from __future__ import annotations

import pytest
import torch

from ablations.config import CellConfig, UsageError
from ablations.config.make import make_config
from ablations.config.options import EngineOptions
from ablations.config.recipes import defaults
from ablations.planning.checks import CONFLICTS, NEED_CUDA, check_conflicts, check_device_fields

CPU, GPU, APPLE = map(torch.device, ("cpu", "cuda", "mps"))
LEAN, LIGHTNING = EngineOptions(), EngineOptions(trainer="lightning")


def cell(**fields: object) -> CellConfig:
    base = defaults(image_side=32, flips=False) | {"data": "d", "data_fingerprint": "", "norm": "xnorm", "seed": 0}
    return make_config(base | fields)


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in NEED_CUDA])
@pytest.mark.parametrize("device", [CPU, APPLE], ids=str)
def test_what_needs_cuda_is_refused_elsewhere(name, value, device):
    with pytest.raises(UsageError, match=rf"^{name}=\w+ needs a CUDA GPU; on {device} (leave it out|give 32-true)"):
        check_device_fields(device, {name: [value]})
    check_device_fields(GPU, {name: [value]})
    check_device_fields(device, {name: [False, "32-true"]})


def test_float16_needs_any_gpu():
    with pytest.raises(UsageError, match="16-mixed needs a GPU"):
        check_device_fields(CPU, {"precision": ["16-mixed"]})
    check_device_fields(APPLE, {"precision": ["16-mixed"]})


REFUSED = {
    "graph, Lightning": ({"cuda_graph": True}, LIGHTNING, "cuda_graph=on needs the lean trainer"),
    "stack, Lightning": ({"stack": 8}, LIGHTNING, "stack=8 needs the lean trainer"),
    "graph, streamed": ({"cuda_graph": True, "streamed": True}, LEAN, "cuda_graph=on needs images in memory"),
    "graph, timm's draws": (
        {"cuda_graph": True, "model": "timm:resnet18", "drop_path": 0.1},
        LEAN,
        "cuda_graph=on captures no random draws of a net of timm; give drop_path=0",
    ),
    "graph, deterministic stack": (
        {"cuda_graph": True, "stack": 8, "deterministic": True},
        LEAN,
        "cuda_graph=on captures no deterministic stack",
    ),
    **{
        f"{field}, {what}": ({field: value}, options, f"{shown} {why}")
        for what, options, why in (
            (
                "single steps",
                EngineOptions(probe_steps=(1,)),
                "has no single steps to record; leave out --probe-steps",
            ),
            ("GPUs", EngineOptions(gpus_per_cell=2), "is for a cell on one GPU; leave out --gpus-per-cell"),
        )
        for field, value, shown in (
            ("stack", 2, "stack=2"),
            ("cuda_graph", True, "cuda_graph=on"),
            ("compile", True, "compile=on"),
        )
    },
    "stack, W&B": ({"stack": 8}, EngineOptions(loggers=("wandb",)), "stack=8 has several runs in a process"),
    "stack, float16": ({"stack": 8, "precision": "16-mixed"}, LEAN, "stack=8 does not apply to float16"),
    "stack, compiled": ({"stack": 8, "compile": True}, LEAN, "stack=8 does not apply to compiled steps"),
    "deterministic positions": (
        {"deterministic": True, "task": "detect"},
        LEAN,
        "deterministic=on has no gradient for the resized learned positions of a detector; give pos_embed",
    ),
    "deterministic, timed": (
        {"deterministic": True, "cudnn_benchmark": True},
        LEAN,
        "deterministic=on excludes cudnn_benchmark=on",
    ),
}


@pytest.mark.parametrize(("fields", "engine", "message"), REFUSED.values(), ids=list(REFUSED))
def test_a_conflict_is_refused_in_a_line(fields, engine, message):
    with pytest.raises(UsageError) as error:
        check_conflicts([cell(), cell(**fields)], engine)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_every_conflict_has_a_case():
    assert len(REFUSED) == len(CONFLICTS)


def test_what_goes_together_is_allowed():
    for fields in (
        {"cuda_graph": True, "drop_path": 0.1},
        {"cuda_graph": True, "model": "timm:resnet18"},
        {"cuda_graph": True, "compile": True},
        {"stack": 8, "streamed": True},
        {"stack": 8, "cuda_graph": True},
        {"deterministic": True, "cuda_graph": True, "precision": "tf32"},
        {"cudnn_benchmark": True},
        {"deterministic": True, "task": "detect", "pos_embed": "sincos"},
    ):
        check_conflicts([cell(**fields)], LEAN)
    check_conflicts([cell(compile=True, model="timm:resnet18", drop_path=0.1)], LIGHTNING)
