"""Every recipe and task on a pretended GPU: no tensor lies on another device, and no operator waits for one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from launches import Launches
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ablations.data import DataInfo, EvalBatches, TrainBatches
from ablations.data.modules import make_data
from ablations.tasks.classify import Classifier
from ablations.tasks.make import make_module
from ablations.training.loop import LeanTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
import golden

CUDA = torch.device("cuda")
IN_MEMORY = {name: case for name, case in golden.CASES["classify"].items() if case[0] != "streamed"}


@pytest.fixture(scope="module")
def infos(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, DataInfo]:
    return golden.infos(tmp_path_factory.mktemp("data"))


@contextmanager
def pretended() -> Iterator[FakeTensorMode]:
    """Pretend that there is a GPU: tensors have shapes and devices, and no values."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def moved(mode: FakeTensorMode, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: mode.from_tensor(tensor).to(CUDA) for name, tensor in tensors.items() if name != "hit"}


def move_batches(mode: FakeTensorMode, batches: Any) -> None:
    split = batches.split
    parts = moved(mode, {name: getattr(split, name) for name in ("images", "labels", "rows")})
    batches.split = dataclasses.replace(split, **parts)
    batches.scale.factor, batches.scale.shift = moved(mode, vars(batches.scale)).values()


def drawn(info: DataInfo, recipe: str, fields: Mapping[str, Any], folder: Path) -> tuple[Classifier, Any]:
    """Return a cell's module and loaders with their first epoch drawn, on the CPU as always."""
    config = golden.config_of(info, "classify", recipe, dict(fields))
    module, data = make_module(config, info), make_data(config, info)
    trainer = LeanTrainer(config, device=torch.device("cpu"), callbacks=[], log_dir=folder)
    data.trainer = trainer
    data.setup("fit")
    trainer.train_dataloader, trainer.val_dataloaders = data.train_dataloader(), data.val_dataloader()
    trainer.train_dataloader.set_epoch(0)
    module.fabric = trainer
    module._draw(0)
    return module, trainer


@pytest.mark.parametrize("case", IN_MEMORY)
def test_a_classifiers_step_and_evaluation_stay_on_the_gpu(case, infos, tmp_path, monkeypatch):
    data, recipe, fields = IN_MEMORY[case]
    module, trainer = drawn(infos[data], recipe, fields, tmp_path)
    train, val = trainer.train_dataloader, trainer.val_dataloaders
    assert isinstance(train, TrainBatches)
    assert isinstance(val, EvalBatches)
    with pretended() as mode:
        module.to(CUDA)
        for batches in (train, val):
            move_batches(mode, batches)
        train.draws = moved(mode, train.draws)
        if module._mixing_draws is not None:
            module._mixing_draws.draws = moved(mode, module._mixing_draws.draws)
            noise = module._mixing_draws.generators
            monkeypatch.setattr(module, "step_generators", lambda: [None] * len(noise))  # torch has no pretended one
        if module._keep is not None:
            module._keep = moved(mode, {"keep": module._keep})["keep"]
        index = torch.zeros(1, dtype=torch.int64, device=CUDA)
        with Launches("cuda"):
            loss = module.loss(train.batch(index), index)  # as a captured step
            module.record_loss(loss)
            assert module.training_step(train.batch(1), 1).device.type == "cuda"
        module.eval()
        for step in (module.validation_step, module.test_step):
            for number, batch in enumerate(val):
                step(batch, number)
        assert module.predict_step(batch, 0).device.type == "cuda"


@pytest.mark.parametrize("case", golden.CASES["detect"])
def test_the_parts_of_a_detector_stay_on_the_gpu(case, infos):
    """Proposals are chosen by their values, which pretended tensors have not; the parts around them are run."""
    data, recipe, fields = golden.CASES["detect"][case]
    config = golden.config_of(infos[data], "detect", recipe, fields)
    net = make_module(config, infos[data]).net
    with pretended():
        net.to(CUDA)
        images = [torch.empty(3, 64, 80, device=CUDA), torch.empty(3, 48, 64, device=CUDA)]
        targets = [
            {
                "boxes": torch.empty(2, 4, device=CUDA),
                "labels": torch.zeros(2, dtype=torch.int64, device=CUDA),
                "masks": torch.zeros(2, *image.shape[1:], dtype=torch.uint8, device=CUDA),
            }
            for image in images
        ]
        for is_training in (True, False):
            net.train(is_training)
            batch, scaled = net.transform(images, targets if is_training else None)
            maps = net.backbone(batch.tensors)
            scores, deltas = net.rpn.head(list(maps.values()))
            anchors = net.rpn.anchor_generator(batch, list(maps.values()))
            width, side = maps["0"].shape[1], net.roi_heads.box_roi_pool.output_size[0]
            pooled = net.roi_heads.box_head(torch.empty(6, width, side, side, device=CUDA))
            classes, boxes = net.roi_heads.box_predictor(pooled)
            side = net.roi_heads.mask_roi_pool.output_size[0]
            masks = net.roi_heads.mask_predictor(
                net.roi_heads.mask_head(torch.empty(6, width, side, side, device=CUDA))
            )
            found = [batch.tensors, *maps.values(), *scores, *deltas, *anchors, classes, boxes, masks]
            found += [part for target in scaled or () for part in target.values()]
            assert {tensor.device.type for tensor in found} == {"cuda"}
