"""float16 with a fused optimiser: gradients are unscaled before they are read and clipped, in both loops alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_lightning import CPU, classifier, same, weights
from test_stacked import Cell, digits, near, one_thread, single  # noqa: F401  # fixtures

from ablations.data import DataInfo
from ablations.training.lightning import LightningTrainer

SHORT = {"epochs": 1, "train_limit": 128, "warmup_epochs": 0, "grad_clip": 0.5}


def on_trainer(cell: Cell) -> Cell:
    cell.trainer = LightningTrainer(
        cell.module.config, device=CPU, callbacks=[cell.history, cell.checkpoints], log_dir=cell.history.folder
    )
    cell.trainer.fit(cell.module, cell.data)
    return cell


def test_both_loops_end_with_the_same_bits_near_those_of_float32(digits: DataInfo, tmp_path: Path):  # noqa: F811
    config = classifier(digits, **SHORT, precision="16-mixed")
    lean = single(config, digits, tmp_path / "lean")
    theirs = on_trainer(Cell(config, digits, tmp_path / "theirs"))
    for cell in (lean, theirs):
        assert cell.trainer.optimizers[0].defaults["fused"]
    assert same(weights(lean.module), weights(theirs.module))
    assert lean.rows() == theirs.rows()
    wide = single(classifier(digits, **SHORT), digits, tmp_path / "wide")
    assert near(lean.rows(), wide.rows(), rtol=1e-2)
    assert lean.probes() == pytest.approx(wide.probes(), rel=0.1, abs=1e-4)  # gradient norms, not scaled ones


@pytest.mark.parametrize("captured", [False, True])
def test_a_step_whose_gradients_overflow_is_skipped(captured: bool, digits: DataInfo, tmp_path: Path):  # noqa: F811
    cell = Cell(classifier(digits, **SHORT, precision="16-mixed", cuda_graph=captured), digits, tmp_path)
    cell.trainer.strategy.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    cell.trainer.fit(cell.module, cell.data)  # both of its steps overflow
    steps = {float(state["step"]) for state in cell.trainer.optimizers[0].state.values()}
    assert steps == {0.0}
    assert all(tensor.isfinite().all() for tensor in weights(cell.module).values())
