"""A step made of tensors, as a CUDA graph needs it: run kernel by kernel, it has the numbers of a plain one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_lightning import ALL_ON, classifier, same, weights
from test_stacked import Cell, digits, near, one_thread, same_weights, single  # noqa: F401  # fixtures

from ablations.data import DataInfo
from ablations.training.captured import WARM_UP_STEPS, CapturedStep
from ablations.training.optimizer import build_optimizer, place_lr

CPU = torch.device("cpu")


@pytest.mark.parametrize("fields", [{"epochs": 2, "train_limit": 320, "warmup_epochs": 0}, ALL_ON | {"epochs": 2}])
def test_a_step_made_of_tensors_has_the_numbers_of_a_plain_one(fields, digits: DataInfo, tmp_path: Path):  # noqa: F811
    plain = single(classifier(digits, **fields), digits, tmp_path / "plain")
    tensors = single(classifier(digits, **fields, cuda_graph=True), digits, tmp_path / "tensors")
    assert tensors.module.epoch_hashes == plain.module.epoch_hashes
    assert near(tensors.rows(), plain.rows(), rtol=1e-5)
    assert tensors.probes() == pytest.approx(plain.probes(), rel=1e-3, abs=1e-7)
    assert same_weights(tensors.module, plain.module, atol=1e-5)


def test_a_step_made_of_tensors_resumes_within_an_epoch(digits: DataInfo, tmp_path: Path):  # noqa: F811
    class Stop(Exception):
        pass

    config = classifier(digits, **ALL_ON | {"epochs": 2}, cuda_graph=True)
    whole = single(config, digits, tmp_path / "whole")
    cut = Cell(config, digits, tmp_path / "cut")

    def stop(trainer, *_):
        if trainer.global_step == 7:
            cut.checkpoints.save(trainer)
            raise Stop

    cut.history.on_train_batch_end = stop
    with pytest.raises(Stop):
        cut.trainer.fit(cut.module, cut.data)
    again, seen = Cell(config, digits, tmp_path / "cut"), list[float]()
    to_device = again.trainer.to_device

    def move(module: torch.nn.Module) -> torch.nn.Module:
        seen.append(float(again.module.train_loss.mean_value))
        return to_device(module)

    again.trainer.to_device = move
    again.trainer.fit(again.module, again.data, checkpoint=again.checkpoints.load())
    assert seen[-1] > 0, "a metric's state, which a checkpoint replaces by one on the CPU, is moved too"
    assert again.rows() == whole.rows()
    assert same(weights(again.module), weights(whole.module))


class Recorder:
    """A CUDA graph that notes what it is told to do, and replays the captured step."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def register_generator_state(self, _generator: torch.Generator) -> None:
        self.told.append("generator")

    def replay(self) -> None:
        self.told.append("replay")


def test_a_step_is_captured_once_after_a_warm_up_and_left_out_on_demand(monkeypatch: pytest.MonkeyPatch):
    graph, ran = Recorder(), list[int]()

    class Capture:
        def __init__(self, _graph: Recorder, *, stream: object) -> None: ...
        def __enter__(self) -> None:
            graph.told.append("capture")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)

    def step(index: torch.Tensor) -> torch.Tensor:
        ran.append(int(index))
        return torch.tensor(float(index))

    generators: list[torch.Generator] = []  # as before the draws of a resumed epoch
    captured = CapturedStep(step, device=CPU, generators=lambda: generators)
    generators.append(torch.Generator())
    captured._stream = object()  # as on a GPU
    for index in range(WARM_UP_STEPS + 2):
        captured(index)
    captured(9, replay=False)
    captured(10)
    assert ran == [*range(WARM_UP_STEPS), WARM_UP_STEPS, 9]  # the capture runs the function once
    assert graph.told == ["generator", "capture", "replay", "replay", "replay"]


def test_a_learning_rate_from_a_checkpoint_is_on_the_device_again():
    net = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(net, lr=torch.tensor(1e-3), weight_decay=0.1, fused=True)
    place_lr(optimizer, torch.device("meta"))
    assert [group["lr"].device.type for group in optimizer.param_groups] == ["meta", "meta"]
    plain = build_optimizer(net, lr=1e-3, weight_decay=0.1, fused=True)
    place_lr(plain, torch.device("meta"))
    assert [group["lr"] for group in plain.param_groups] == [1e-3, 1e-3]
