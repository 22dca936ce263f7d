"""Gated attention and cores in float32 in both loops, in steps made of tensors and in stacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_half import on_trainer
from test_lightning import classifier, same, weights
from test_stacked import Cell, digits, near, one_thread, same_weights, single  # noqa: F401  # fixtures

from ablations.data import DataInfo
from ablations.tasks.detect.start import start_body
from ablations.tasks.trained import WEIGHTS, load_module, save_weights
from ablations.training.stacked import Stack
from ufo.scale import attention_layers

SHORT = {"epochs": 1, "train_limit": 192, "warmup_epochs": 0}
GATE = {"output_gate": True}
WIDE = {"precision": "bf16-mixed", "core_precision": "float32"}
CASES = {"gate": GATE, "wide": WIDE, "both": GATE | WIDE}

HALF_RTOL = 2**-9
"""Of a mean loss after three steps: half a unit of bfloat16's last place, since other last bits round otherwise."""


def watch(cell: Cell) -> set[tuple[torch.dtype, bool]]:
    """Return the set that the cores of a cell and of copies of its net fill: type of q, whether autocast is on."""
    seen: set[tuple[torch.dtype, bool]] = set()
    for layer in attention_layers(cell.module.net).values():
        layer.norm.register_forward_hook(
            lambda _module, args, _out: seen.add((args[0].dtype, torch.is_autocast_enabled("cpu")))
        )
    return seen


def losses(cell: Cell) -> list[float]:
    return [row[name] for row in cell.rows() for name in ("train_loss", "val_loss")]


@pytest.mark.parametrize("case", CASES)
def test_both_loops_end_with_the_same_bits_and_not_with_those_of_the_default(case, digits: DataInfo, tmp_path: Path):  # noqa: F811
    config = classifier(digits, **SHORT, **CASES[case])
    lean = single(config, digits, tmp_path / "lean")
    theirs = on_trainer(Cell(config, digits, tmp_path / "theirs"))
    assert same(weights(lean.module), weights(theirs.module))
    assert lean.rows() == theirs.rows()
    default = config.model_copy(update={"output_gate": False, "core_precision": "own"})
    assert single(default, digits, tmp_path / "default").rows() != lean.rows()


@pytest.mark.parametrize("core_precision", ["own", "float32"])
def test_a_cells_training_and_evaluation_have_the_cores_precision(core_precision, digits: DataInfo, tmp_path: Path):  # noqa: F811
    cell = Cell(classifier(digits, **SHORT, **WIDE | {"core_precision": core_precision}), digits, tmp_path)
    seen = watch(cell)
    cell.trainer.fit(cell.module, cell.data)
    assert seen == {(torch.float32, False) if core_precision == "float32" else (torch.bfloat16, True)}


@pytest.mark.parametrize("case", CASES)
def test_a_step_made_of_tensors_has_the_numbers_of_a_plain_one(case, digits: DataInfo, tmp_path: Path):  # noqa: F811
    plain = single(classifier(digits, **SHORT, **CASES[case]), digits, tmp_path / "plain")
    tensors = Cell(classifier(digits, **SHORT, **CASES[case], cuda_graph=True), digits, tmp_path / "tensors")
    seen = watch(tensors)
    tensors.trainer.fit(tensors.module, tensors.data)
    assert seen == {(torch.float32, False)}
    assert losses(tensors) == pytest.approx(losses(plain), rel=1e-5 if case == "gate" else HALF_RTOL)
    if case == "gate":
        assert same_weights(tensors.module, plain.module, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["xnorm", "single_l2"])
def test_each_stacked_cell_has_the_numbers_of_a_single_run(case, norm, digits: DataInfo, tmp_path: Path):  # noqa: F811
    configs = [classifier(digits, **SHORT, **CASES[case], norm=norm, seed=seed) for seed in (0, 3)]
    cells = [Cell(config, digits, tmp_path / str(config.seed)) for config in configs]
    seen = watch(cells[0])
    stack = Stack([cell.trainer for cell in cells], [cell.checkpoints for cell in cells])
    stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=[None, None])
    assert not stack.diverged
    assert seen == {(torch.float32, False)}
    for config, cell in zip(configs, cells, strict=True):
        alone = single(config, digits, tmp_path / f"single{config.seed}")
        if case == "gate":
            assert near(cell.rows(), alone.rows())
        assert losses(cell) == pytest.approx(losses(alone), rel=HALF_RTOL)


def test_saved_weights_come_back_with_gate_and_precision(digits: DataInfo, tmp_path: Path):  # noqa: F811
    cell = single(classifier(digits, **SHORT, **CASES["both"]), digits, tmp_path)
    save_weights(cell.module, tmp_path)
    module = load_module(tmp_path)
    assert same(weights(module), weights(cell.module))
    assert {layer.core_precision for layer in attention_layers(module.net).values()} == {"float32"}


def test_a_detector_takes_its_weights_from_classifiers_with_its_gate_alone(digits: DataInfo, tmp_path: Path):  # noqa: F811
    cell = Cell(classifier(digits, **SHORT, **GATE), digits, tmp_path)
    save_weights(cell.module, tmp_path)
    same_net = cell.module.config.model_copy(update={"task": "detect"})
    for update, message in (
        ({"output_gate": False}, "was trained with output_gate=on, not off$"),
        ({}, "patch_embed.0.weight is .* in the weights"),  # only the channels of the images differ
        ({"output_gate": False, "change": "output_gate=on"}, "patch_embed.0.weight is .* in the weights"),
    ):
        with pytest.raises(ValueError, match=message):
            start_body(same_net.model_copy(update=update), tmp_path / WEIGHTS)


def test_a_gated_cell_of_matched_scale_has_the_gains_of_float32(digits: DataInfo, tmp_path: Path):  # noqa: F811
    fields = SHORT | GATE | {"norm": "single_l2", "scale": "matched"}
    gains = []
    for name, more in (("half", WIDE), ("full", {})):
        cell = single(classifier(digits, **fields, **more), digits, tmp_path / name)
        gains.append([layer.matched_gain.item() for layer in attention_layers(cell.module.net).values()])
    assert gains[0] == pytest.approx(gains[1], rel=2**-6)  # a few roundings of bfloat16
    assert min(abs(gain - 1) for gain in gains[0]) > 0.05
