"""Cells on a device: the numbers of the CPU, the same bits where they are promised, no wait within a step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from conftest import FILES_OF_NUMBERS

from ablations.config import CellConfig, recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import DataInfo, find_objects, find_source, prepare, prepare_objects
from ablations.data.modules import make_data
from ablations.engine.cell import run_cell
from ablations.engine.result import Result
from ablations.tasks.make import make_module
from ablations.training.loop import LeanTrainer

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, for deterministic products

CPU = torch.device("cpu")

STEPS_RTOL = 1e-4
"""Of the losses of the first three steps in float32: sums in another order, through two steps of AdamW."""

EPOCHS_RTOL = 1e-2
"""Of three epochs of eight steps, in which such differences grow."""

TF32_RTOL = 1e-2
"""Likewise with products of 10 bits: about ten of their roundings, 2^-11."""

DETECTION_RTOL = 1e-2
"""Of a detector's first loss: a last bit may put one proposal in another's place."""

TINY = {"fpn_dim": 16, "box_dim": 32, "mask_dim": 16, "rois": 16, "proposals": 40, "most_found": 10, "patch": 8}


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


def make_cell(digits: DataInfo, **fields: object) -> CellConfig:
    """Return a cell of three epochs of one step each, unless the fields say otherwise."""
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": digits.fingerprint}
    short = {"epochs": 3, "warmup_epochs": 0, "batch_size": 64, "train_limit": 64, "norm": "xnorm", "seed": 0}
    return make_config(base | short | {"smoke": True} | fields)


def run(config: CellConfig, info: DataInfo, folder: Path, device: torch.device, **options: object) -> Result:
    folder.mkdir(exist_ok=True)
    result = run_cell(config, info, folder=folder, device=device, options=CellOptions(**options), numerics="1")
    assert (result.outcome, result.detail) == ("ok", "")
    return result


def losses(folder: Path) -> list[float]:
    """Return the training loss of each epoch."""
    return pd.read_csv(folder / "metrics.csv")["train_loss"].tolist()


def numbers(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES_OF_NUMBERS]


def exact(device: torch.device) -> dict[str, object]:
    """Return the fields with which a device repeats its bits; a CPU always does."""
    return {"deterministic": True} if device.type == "cuda" else {}


def test_a_cell_draws_what_it_draws_on_the_cpu_and_agrees_with_it(device, digits, tmp_path):
    config = make_cell(digits, drop_path=0.2, mixup=0.8, cutmix=1.0, erasing=0.25)
    results = [run(config, digits, tmp_path / name, place) for name, place in (("a", CPU), ("b", device))]
    for drawn in ("init_hash", "split_hash", "epoch_hashes"):
        assert results[0].fields[drawn] == results[1].fields[drawn]
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=STEPS_RTOL)


@pytest.mark.parametrize("norm", ["xnorm", "softmax"])
def test_a_cell_repeats_its_bits_and_resumes_to_them(device, digits, tmp_path, norm):
    config = make_cell(digits, norm=norm, train_limit=256, drop_path=0.2, ema_decay=0.9, **exact(device))
    for name, every in (("whole", 0), ("again", 2)):
        run(config, digits, tmp_path / name, device, checkpoint_every=every)
    assert numbers(tmp_path / "again") == numbers(tmp_path / "whole")
    (tmp_path / "again" / "metrics.csv").unlink()  # as after a kill: the checkpoint of the second epoch is left
    resumed = run(config, digits, tmp_path / "again", device, checkpoint_every=2)
    assert resumed.fields["resumed_after_epochs"] == [2]
    assert numbers(tmp_path / "again") == numbers(tmp_path / "whole")


def test_half_precision_trains(device, digits, tmp_path):
    for precision in ("bf16-mixed", "16-mixed")[: 2 if device.type == "cuda" else 1]:
        run(make_cell(digits), digits, tmp_path / "float32", device)
        run(make_cell(digits, precision=precision), digits, tmp_path / precision, device)
        assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "float32"), rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="the compiler needs a C compiler")
def test_compiled_steps_agree_with_eager_ones(device, digits, tmp_path):
    for name, fields in (("eager", {}), ("compiled", {"compile": True})):
        run(make_cell(digits, depth=1, **fields), digits, tmp_path / name, device)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=STEPS_RTOL)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"drop_path": 0.2, "mixup": 0.8, "ema_decay": 0.9},
        {"precision": "16-mixed"},
        {"precision": "16-mixed", "core_precision": "float32", "output_gate": True},
        {"deterministic": True, "policy": "rand_augment"},
    ],
    ids=["plain", "rich", "float16", "float32 core", "deterministic"],
)
def test_captured_steps_agree_with_eager_ones(cuda, digits, tmp_path, fields):
    results = [
        run(make_cell(digits, train_limit=512, cuda_graph=captured, **fields), digits, tmp_path / name, cuda)
        for name, captured in (("eager", False), ("captured", True))
    ]
    assert results[0].fields["epoch_hashes"] == results[1].fields["epoch_hashes"]
    assert losses(tmp_path / "captured") == pytest.approx(losses(tmp_path / "eager"), rel=EPOCHS_RTOL)


def test_products_are_in_tf32_only_where_it_is_asked_for(cuda, digits, tmp_path):
    precisions = {"true": "32-true", "tf32": "tf32", "after": "32-true"}
    for name, precision in precisions.items():
        run(make_cell(digits, precision=precision, deterministic=True), digits, tmp_path / name, cuda)
    run(make_cell(digits), digits, tmp_path / "cpu", CPU)
    assert losses(tmp_path / "after") == losses(tmp_path / "true")
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "cpu"), rel=STEPS_RTOL)
    assert losses(tmp_path / "tf32") == pytest.approx(losses(tmp_path / "true"), rel=TF32_RTOL)
    assert losses(tmp_path / "tf32") != losses(tmp_path / "true")


class Enough(Exception):
    """The steps have been run."""


class Waits(pl.Callback):
    """Let torch raise where a step waits for the GPU; the first steps may, since they set things up."""

    def __init__(self, first: int = 3, last: int = 13) -> None:
        self.first, self.last, self.losses = first, last, list[torch.Tensor]()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"])
        if len(self.losses) == self.first and torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("error")
        if len(self.losses) == self.last:
            raise Enough


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"drop_path": 0.2, "mixup": 0.8, "cutmix": 1.0},
        {"policy": "rand_augment", "erasing": 0.5, "ema_decay": 0.9},
        {"cuda_graph": True},
        {"precision": "16-mixed"},
        {"precision": "16-mixed", "core_precision": "float32", "output_gate": True},
        {"deterministic": True, "policy": "rand_augment"},
    ],
    ids=["plain", "mixed", "augmented", "captured", "float16", "float32 core", "deterministic"],
)
def test_no_step_waits_for_the_gpu(device, digits, tmp_path, fields):
    if device.type == "cpu" and not {"cuda_graph", "precision", "deterministic"}.isdisjoint(fields):
        pytest.skip("needs CUDA")
    config, waits = make_cell(digits, train_limit=None, **fields), Waits()
    module, data = make_module(config, digits), make_data(config, digits)
    try:
        with pytest.raises(Enough):
            LeanTrainer(config, device=device, callbacks=[waits], log_dir=tmp_path).fit(module, data)
    finally:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(waits.losses).isfinite().all()


def test_a_detectors_step_agrees_with_the_cpus(device, tmp_path):
    info = prepare_objects(find_objects("shapes", image_size=64))
    base = recipes.defaults(image_side=64, flips=True, task="detect")
    own = {"task": "detect", "data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed}
    small = {"train_sides": "64", "eval_side": 64, "longest_side": 64, "batch_size": 4, "train_limit": 8, "epochs": 1}
    config = make_config(base | own | TINY | small | {"norm": "xnorm", "seed": 0, "warmup_epochs": 0, "smoke": True})
    found = []
    for place in (CPU, device):
        waits = Waits(first=0, last=1)
        with pytest.raises(Enough):
            LeanTrainer(config, device=place, callbacks=[waits], log_dir=tmp_path).fit(
                make_module(config, info), make_data(config, info)
            )
        found.append(waits.losses[0].item())
    assert found[1] == pytest.approx(found[0], rel=DETECTION_RTOL)
