"""Probes of single steps: their values, that they change no result, and that they survive an interruption."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_lightning import ALL_ON, CPU, classifier, same
from test_stacked import digits, one_thread  # noqa: F401  # fixtures
from torch import nn

from ablations.config import CellConfig
from ablations.config.options import CellOptions
from ablations.data import DataInfo
from ablations.engine.cell import Result, run_cell
from ablations.training.module import CellModule
from ufo.scale import attention_layers

STEPS = (1, 2, 5, 9)
SHORT = ALL_ON | {"epochs": 2, "norm": "l2", "scale": "matched"}  # five steps an epoch
LAYERS = ["blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn"]
FILES = ("metrics.csv", "probes.csv", "correct.npy")


def run(config: CellConfig, info: DataInfo, folder: Path, **options: Any) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    return run_cell(config, info, folder=folder, device=CPU, options=CellOptions(save_weights=True, **options))


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "steps.csv", keep_default_na=False)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lean", "lightning"])
def test_recorded_steps_change_no_result_and_are_those_that_are_asked_for(trainer, digits, tmp_path):  # noqa: F811
    config = classifier(digits, **SHORT)
    run(config, digits, tmp_path / "without", trainer=trainer)
    result = run(config, digits, tmp_path / "with", trainer=trainer, probe_steps=(*STEPS, 999))
    assert result.outcome == "ok", result.detail
    assert not (tmp_path / "without" / "steps.csv").exists()
    for name in FILES:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert same(*(load_file(tmp_path / name / "weights.safetensors") for name in ("with", "without")))
    found = read(tmp_path / "with")
    assert list(found) == ["step", "layer", "probe", "value"]
    of_step = [("", "loss"), *[(layer, probe) for layer in LAYERS for probe in ("output_rms", "grad_norm")]]
    assert list(zip(found["layer"], found["probe"], strict=True)) == of_step * len(STEPS)
    assert found["step"].tolist() == [step for step in STEPS for _ in of_step]
    assert (found["value"].astype(float) > 0).all()
    run(config, digits, tmp_path / "lean", probe_steps=STEPS)
    assert (tmp_path / "lean" / "steps.csv").read_bytes() == (tmp_path / "with" / "steps.csv").read_bytes()


def test_values_are_those_of_the_training_batch_before_clipping(digits, tmp_path, monkeypatch):  # noqa: F811
    """Recompute them from what the net and its loss see, with gradients that are clipped to a tenth or less."""
    seen: dict[str, list[float]] = {}

    def loss(self: CellModule, batch: Any, index: Any) -> torch.Tensor:
        hooks = [
            attention.norm.register_forward_hook(note(layer, attention)) for layer, attention in layers(self).items()
        ]
        value = plain(self, batch, index)
        for hook in hooks:
            hook.remove()
        seen.setdefault("loss", []).append(value.item())
        return value

    def layers(module: CellModule) -> dict[str, Any]:
        return attention_layers(module.net)

    def note(layer: str, attention: Any) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            value = np.sqrt(np.mean(np.square((output.detach() * attention.matched_gain).double().numpy())))
            seen.setdefault(f"{layer} output_rms", []).append(float(value))

        return hook

    def clip(self: CellModule, optimizer: Any, *_: Any) -> None:
        for layer, attention in layers(self).items():
            squares = sum(float(p.grad.double().square().sum()) for p in attention.parameters() if p.grad is not None)
            seen.setdefault(f"{layer} grad_norm", []).append(squares**0.5)
        clip_plainly(self, optimizer)

    plain, clip_plainly = type(make(digits)).loss, CellModule.configure_gradient_clipping
    monkeypatch.setattr(type(make(digits)), "loss", loss)
    monkeypatch.setattr(CellModule, "configure_gradient_clipping", clip)
    run(classifier(digits, **SHORT | {"grad_clip": 0.01}), digits, tmp_path, probe_steps=STEPS)
    assert {len(values) for values in seen.values()} == {10}
    for row in read(tmp_path).itertuples():
        assert row.value == pytest.approx(seen[f"{row.layer} {row.probe}".strip()][row.step - 1], rel=1e-5)


def make(info: DataInfo) -> CellModule:
    from ablations.tasks.make import make_module

    return make_module(classifier(info), info)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["lean", "lightning"])
@pytest.mark.parametrize("at", [3, 7])
def test_a_resumed_cell_has_the_same_rows(at, trainer, digits, tmp_path, monkeypatch):  # noqa: F811
    config = classifier(digits, **SHORT)
    options = {"trainer": trainer, "probe_steps": STEPS, "checkpoint_every": timedelta(microseconds=1)}
    run(config, digits, tmp_path / "whole", **options)
    plain, count = CellModule.on_train_batch_start, 0

    def cut(self: CellModule, batch: Any, batch_idx: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        plain(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(CellModule, "on_train_batch_start", cut)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(config, digits, tmp_path / "cut", **options)
    assert set(read(tmp_path / "cut")["step"]) == {step for step in STEPS if step < at}
    result = run(config, digits, tmp_path / "cut", **options)
    assert len(result.fields["resumed_after_epochs"]) == 1
    for name in ("steps.csv", *FILES):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert same(*(load_file(tmp_path / name / "weights.safetensors") for name in ("cut", "whole")))


def test_an_attempt_from_scratch_keeps_no_rows_of_an_earlier_one(digits, tmp_path):  # noqa: F811
    (tmp_path / "steps.csv").write_text("step,layer,probe,value\n1,,loss,9.0\n")
    run(classifier(digits, epochs=1, train_limit=128), digits, tmp_path, probe_steps=(999,))
    assert read(tmp_path).empty
    (tmp_path / "steps.csv").write_text("step,layer,probe,value\n1,,loss,9.0\n")
    run(classifier(digits, epochs=1, train_limit=128), digits, tmp_path)
    assert not (tmp_path / "steps.csv").exists()


def test_a_cell_that_diverges_keeps_its_rows(digits, tmp_path):  # noqa: F811
    hot = {"lr": 1e9, "grad_clip": 0, "warmup_epochs": 0, "norm": "single_l2", "smoke": False}
    result = run(classifier(digits, **hot, epochs=1), digits, tmp_path, probe_steps=(1, 10))
    assert result.outcome == "diverged"
    found = read(tmp_path).astype({"value": float}).query("probe == 'loss'")
    assert found["step"].tolist() == [1, 10]
    assert np.isfinite(found["value"]).tolist() == [True, False]
