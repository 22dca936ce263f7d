"""Seeds that are trained as one batched net: each cell's numbers are those of a single run, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lightning import ALL_ON, CPU, classifier, weights

from ablations.config import CellConfig
from ablations.data import DataInfo, find_source, prepare
from ablations.data.modules import make_data
from ablations.engine.threads import cpu_threads
from ablations.store import CHECKPOINT
from ablations.tasks.make import make_module
from ablations.training.callbacks import History, Probes
from ablations.training.checkpoint import Checkpoints, ask_for_checkpoint, load_alike
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule
from ablations.training.stacked import Stack


@pytest.fixture(autouse=True)
def one_thread():
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


class Cell:
    """A cell with its trainer, in a folder of its own."""

    def __init__(self, config: CellConfig, info: DataInfo, folder: Path, *, every: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.module, self.data = make_module(config, info), make_data(config, info)
        self.history = History(folder)
        self.checkpoints = Checkpoints(folder, every=every, made_by={})
        self.trainer = LeanTrainer(config, device=CPU, callbacks=[self.history, self.checkpoints], log_dir=folder)

    def rows(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "batches"} for row in self.history.rows]

    def probes(self) -> list[float]:
        (probes,) = [each for each in self.trainer.callbacks if isinstance(each, Probes)]
        return [row["value"] for row in probes.rows]


def single(config: CellConfig, info: DataInfo, folder: Path) -> Cell:
    cell = Cell(config, info, folder)
    cell.trainer.fit(cell.module, cell.data)
    return cell


def stacked(
    configs: Sequence[CellConfig], info: DataInfo, folder: Path, *, every: int | None = None, resume: bool = False
) -> tuple[list[Cell], Stack]:
    cells = [Cell(config, info, folder / str(config.seed), every=every) for config in configs]
    stack = Stack([cell.trainer for cell in cells], [cell.checkpoints for cell in cells])
    resumed = [cell.checkpoints.load() if resume else None for cell in cells]
    stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=resumed)
    return cells, stack


def near(rows: list[dict[str, Any]], others: list[dict[str, Any]], rtol: float = 1e-3) -> bool:
    return len(rows) == len(others) and all(a == pytest.approx(b, rel=rtol) for a, b in zip(rows, others, strict=True))


def same_weights(a: CellModule, b: CellModule, atol: float = 1e-3) -> bool:
    one, other = weights(a), weights(b)
    return all(torch.allclose(one[name].float(), other[name].float(), atol=atol) for name in one)


CASES = {
    "plain": {"epochs": 2, "train_limit": 320, "warmup_epochs": 0},
    "everything": ALL_ON | {"epochs": 2, "lr": 1e-3},
    "captured": ALL_ON | {"epochs": 2, "lr": 1e-3, "cuda_graph": True},
    "alone": ALL_ON | {"epochs": 1, "lr": 1e-3},
    "softmax": {"norm": "softmax", "epochs": 1, "train_limit": 320, "warmup_epochs": 0},
    "matched": {"norm": "l2", "scale": "matched", "epochs": 1, "train_limit": 320, "warmup_epochs": 0},
}


@pytest.mark.parametrize("case", CASES)
def test_each_stacked_cell_has_the_numbers_of_a_single_run(case, digits, tmp_path):
    seeds = (0,) if case == "alone" else (0, 1, 4)  # one that is left of a stack
    configs = [classifier(digits, **CASES[case], seed=seed) for seed in seeds]
    cells, stack = stacked(configs, digits, tmp_path / "stack")
    assert not stack.diverged
    for config, cell in zip(configs, cells, strict=True):
        alone = single(config, digits, tmp_path / f"single{config.seed}")
        assert cell.module.epoch_hashes == alone.module.epoch_hashes
        assert near(cell.rows(), alone.rows()), (cell.rows(), alone.rows())
        assert cell.probes() == pytest.approx(alone.probes(), rel=2e-2, abs=1e-6)
        assert same_weights(cell.module, alone.module)


SHORT = {"epochs": 2, "train_limit": 192, "warmup_epochs": 0}


def test_a_cell_that_diverges_ends_alone(digits, tmp_path):
    configs = [classifier(digits, **SHORT, seed=seed) for seed in (0, 1)]
    whole, _ = stacked(configs, digits, tmp_path / "whole")
    cells = [Cell(config, digits, tmp_path / str(config.seed)) for config in configs]
    with torch.no_grad():
        next(cells[0].module.net.parameters()).fill_(float("nan"))
    stack = Stack([cell.trainer for cell in cells], [cell.checkpoints for cell in cells])
    stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=[None, None])
    assert list(stack.diverged) == [0]
    assert stack.diverged[0].kind == "nan"
    assert cells[1].rows() == whole[1].rows()
    assert same_weights(cells[1].module, whole[1].module, atol=0)


def test_what_follows_a_checkpoint_follows_those_of_all_cells(digits, tmp_path):
    configs, seen = [classifier(digits, **SHORT, seed=seed) for seed in (0, 1)], []
    paths = [tmp_path / str(config.seed) / CHECKPOINT for config in configs]
    ask_for_checkpoint(then=lambda: seen.append([path.exists() for path in paths]))
    stacked(configs, digits, tmp_path)
    assert seen == [[True, True]]


def test_a_resumed_stack_has_the_numbers_of_an_uninterrupted_one(digits, tmp_path):
    configs = [classifier(digits, **SHORT | {"ema_decay": 0.9, "erasing": 0.5}, seed=seed) for seed in (0, 1)]
    whole, _ = stacked(configs, digits, tmp_path / "whole", every=1)
    again, _ = stacked(configs, digits, tmp_path / "whole", every=0, resume=True)  # after the last epoch
    for config in configs:
        path = tmp_path / "whole" / str(config.seed) / CHECKPOINT
        state = torch.load(path, weights_only=True)["state_dict"]
        size = sum(each.numel() * each.element_size() for each in state.values())
        assert path.stat().st_size < 5 * size, "a checkpoint holds its own cell's tensors alone"
    assert [cell.rows() for cell in again] == [cell.rows() for cell in whole]

    class Stop(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Stop

    cells = [Cell(config, digits, tmp_path / "cut" / str(config.seed), every=1) for config in configs]
    cells[1].history.on_train_epoch_start = lambda trainer, module: trainer.current_epoch == 1 and interrupt()
    stack = Stack([cell.trainer for cell in cells], [cell.checkpoints for cell in cells])
    with pytest.raises(Stop):
        stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=[None, None])
    resumed, _ = stacked(configs, digits, tmp_path / "cut", resume=True)
    for one, other in zip(resumed, whole, strict=True):
        assert one.rows() == other.rows()
        assert same_weights(one.module, other.module, atol=0)


def test_a_stack_resumes_without_the_cell_that_has_diverged(digits, tmp_path):
    fields = SHORT | {"epochs": 4}

    def cells_of(folder: Path) -> list[Cell]:
        cells = [Cell(classifier(digits, **fields, seed=seed), digits, folder / str(seed), every=1) for seed in (0, 1)]
        with torch.no_grad():
            next(cells[0].module.net.parameters()).fill_(float("nan"))
        return cells

    def fit(cells: list[Cell], resumed: list[Any]) -> Stack:
        stack = Stack([cell.trainer for cell in cells], [cell.checkpoints for cell in cells])
        stack.fit([cell.module for cell in cells], [cell.data for cell in cells], resumed=resumed)
        return stack

    class Stop(Exception):
        pass

    def stop(trainer: LeanTrainer, _module: object) -> None:
        if trainer.current_epoch == 2:
            raise Stop

    whole = cells_of(tmp_path / "whole")
    expected = fit(whole, [None, None]).diverged[0]
    cut = cells_of(tmp_path / "cut")
    cut[1].history.on_train_epoch_start = stop
    with pytest.raises(Stop):
        fit(cut, [None, None])
    again = cells_of(tmp_path / "cut")
    resumed = load_alike([cell.checkpoints for cell in again])
    assert [state["global_step"] for state in resumed] == [3, 6]
    found = fit(again, resumed).diverged
    assert {place: (each.kind, str(each)) for place, each in found.items()} == {0: (expected.kind, str(expected))}
    assert str(again[0].rows()) == str(whole[0].rows())  # as text, since NaN != NaN
    assert near(again[1].rows(), whole[1].rows(), rtol=1e-5)  # a stack of another size rounds otherwise
    assert same_weights(again[1].module, whole[1].module, atol=1e-5)
    other = cells_of(tmp_path / "cut")
    other[1].checkpoints.path.unlink()
    assert load_alike([cell.checkpoints for cell in other]) == [None, None]
