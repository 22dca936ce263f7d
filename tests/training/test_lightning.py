"""The modules in Lightning's own Trainer: the numbers of the engine, bit for bit, also where a run was cut short."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, cells, numbers, start, wait_for, workers_of, write_images
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

import ablations
from ablations.config import CellConfig, UsageError, recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import DataInfo, Rank, find_objects, find_source, prepare, prepare_objects
from ablations.data.load import load_in_memory, load_streamed
from ablations.data.modules import make_data
from ablations.data.objects.load import load_objects
from ablations.engine.cell import Result, run_cell
from ablations.engine.threads import cpu_threads
from ablations.tasks.classify import Classifier
from ablations.tasks.detect.detector import Detector
from ablations.tasks.make import make_module
from ablations.training.callbacks import Diverged, History
from ablations.training.loop import LeanTrainer
from ablations.training.module import CellModule

CPU = torch.device("cpu")
ALL_ON = {
    "augment": "shift",
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.5,
    "drop_path": 0.2,
    "ema_decay": 0.99,
    "grad_clip": 1.0,
    "warmup_epochs": 1,
    "warmup_steps": 2,
    "layer_scale": 0.1,
    "label_smoothing": 0.1,
    "train_limit": 320,
}
DETECTION = pytest.param("detection", marks=pytest.mark.slow)
TINY = {"fpn_dim": 16, "box_dim": 32, "mask_dim": 16, "rois": 16, "proposals": 40, "most_found": 10, "patch": 8}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a cell has it."""
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> DataInfo:
    folder = write_images(tmp_path_factory.mktemp("photos") / "photos", {"train": 60, "test": 10}, px=32)
    return prepare(find_source(f"imagefolder:{folder}", data_root=cache, download=False, image_size=None))


@pytest.fixture(scope="module")
def shapes(cache: Path) -> DataInfo:
    return prepare_objects(find_objects("shapes", image_size=64))


@pytest.fixture
def case(request: pytest.FixtureRequest, digits: DataInfo, photos: DataInfo, shapes: DataInfo) -> tuple[Any, ...]:
    """A cell by name, and its data set."""
    return {
        "everything": lambda: (classifier(digits, **ALL_ON), digits),
        "timm": lambda: (classifier(photos, model="timm:test_vit", batch_size=10, drop_path=0.3, erasing=0.3), photos),
        "detection": lambda: (detector(shapes, ema_decay=0.9, train_sides="48+64", drop_path=0.1), shapes),
        "matched": lambda: (classifier(digits, norm="l2", augment="shift", scale="matched", train_limit=320), digits),
    }[request.param]()


def classifier(info: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=min(info.image_shape[:2]), flips=True)
    own = {"data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed}
    short = {"model": "ufo_vit_pico", "norm": "xnorm", "seed": 0, "epochs": 3, "batch_size": 64, "smoke": True}
    return make_config(base | own | short | fields)


def detector(info: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=64, flips=True, task="detect")
    own = {"task": "detect", "data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed}
    short = {"epochs": 2, "batch_size": 4, "norm": "xnorm", "seed": 0, "smoke": True, "scored_on": "val"}
    return make_config(base | own | short | {"train_limit": 12} | TINY | fields)


def trainer(config: CellConfig, folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """A Trainer as a user makes it."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    own = {"max_epochs": config.optimisation.epochs, "default_root_dir": folder, "accelerator": "cpu", "devices": 1}
    saved = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return pl.Trainer(**quiet | own | {"callbacks": list(callbacks), "enable_checkpointing": saved} | options)


def weights(module: CellModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of_engine(config: CellConfig, info: DataInfo, folder: Path, **options: Any) -> tuple[Result, dict[str, Tensor]]:
    from safetensors.torch import load_file

    folder.mkdir(parents=True, exist_ok=True)
    result = run_cell(config, info, folder=folder, device=CPU, options=CellOptions(save_weights=True, **options))
    assert result.outcome == "ok", result.detail
    return result, load_file(folder / "weights.safetensors")


@pytest.mark.parametrize("case", ["everything", "timm", "matched", DETECTION], indirect=True)
def test_the_trainer_ends_with_the_bits_of_the_engine(case, tmp_path):
    config, info = case
    result, expected = of_engine(config, info, tmp_path / "engine")
    module, data = make_module(config, info), make_data(config, info)
    (tmp_path / "own").mkdir()
    own = trainer(config, tmp_path / "own", History(tmp_path / "own"))
    before = torch.get_rng_state()
    own.fit(module, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(module), expected)
    assert module.epoch_hashes == result.fields["epoch_hashes"]
    for name in ("metrics.csv", "probes.csv"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "engine" / name).read_bytes()
    assert own.callback_metrics["train_loss"].item() == pytest.approx(module.train_metrics()["train_loss"])
    if config.run.scored_on == "test":
        own.test(module, data, verbose=False)
        module.write_test(tmp_path / "own")
        assert module.test_metrics()["test_accuracy_pct"] == result.fields["test_accuracy_pct"]
        assert (tmp_path / "own" / "correct.npy").read_bytes() == (tmp_path / "engine" / "correct.npy").read_bytes()
        assert torch.equal(torch.get_rng_state(), before)


SAVED = {
    "at an epoch's end, after validation": {"filename": "kept-{epoch}-{step}", "save_top_k": -1},
    "at an epoch's end": {"filename": "kept-{epoch}-{step}", "save_top_k": -1, "save_on_train_epoch_end": True},
    "within an epoch": {"filename": "kept-{epoch}-{step}", "save_top_k": -1, "every_n_train_steps": 2},
}


GONE_ON_WITH = [("everything", saved) for saved in SAVED] + [("timm", saved) for saved in SAVED]
GONE_ON_WITH += [pytest.param("detection", "within an epoch", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "saved"), GONE_ON_WITH, indirect=["case"])
def test_a_trainer_that_goes_on_from_its_checkpoint_ends_as_one_that_ran_through(case, saved, tmp_path):
    config, info = case
    module = make_module(config, info)
    trainer(config, tmp_path, ModelCheckpoint(tmp_path, **SAVED[saved])).fit(module, make_data(config, info))
    expected, hashes, means = weights(module), module.epoch_hashes, module.epoch_metrics()
    found = sorted(tmp_path.glob("kept-*.ckpt"), key=lambda path: int(path.stem.rpartition("=")[2]))
    assert len(found) >= config.optimisation.epochs
    for path in found[:-1:2]:
        module = make_module(config.model_copy(update={"seed": 99}), info)  # whose own weights count for nothing
        module.config = config
        trainer(config, tmp_path / "on").fit(module, make_data(config, info), ckpt_path=path)
        assert same(weights(module), expected), path
        assert module.epoch_hashes == hashes, path
        assert module.epoch_metrics() == means, path


CUT = [(case, by) for case in ("everything", "timm") for by in ("lean", "lightning")]
CUT += [pytest.param("detection", "lean", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "by"), CUT, indirect=["case"])
def test_a_cell_that_was_cut_within_an_epoch_leaves_the_same_bytes(case, by, tmp_path, monkeypatch):
    config, info = case
    _, expected = of_engine(config, info, tmp_path / "whole")
    steps = 0

    def cut(self: CellModule, batch: Any, batch_idx: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # of the second epoch, or of the first of ten
            raise KeyboardInterrupt
        plain(self, batch, batch_idx)

    each_step = timedelta(microseconds=1)
    plain = CellModule.on_train_batch_start
    with monkeypatch.context() as patched:
        patched.setattr(CellModule, "on_train_batch_start", cut)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            of_engine(config, info, tmp_path / "cut", checkpoint_every=each_step, trainer=by)
    result, found = of_engine(config, info, tmp_path / "cut", checkpoint_every=each_step, trainer=by)
    assert len(result.fields["resumed_after_epochs"]) == 1
    assert f"step {4}" in (tmp_path / "cut" / "log.txt").read_text()
    assert same(found, expected)
    for name in ("metrics.csv", "probes.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


LONG = ("--norm", "xnorm", "--seed", 0, "--epochs", 2, "--batch-size", 16, "--set", "erasing=0.5", "--set", "mixup=0.8")


@pytest.mark.slow  # a process of its own is killed
def test_a_cell_that_is_killed_within_an_epoch_goes_on_from_there(tmp_path, cli):
    assert cli("run", *LONG, "--out", tmp_path / "whole")[0] == 0
    killed = start(*LONG, "--checkpoint-every", "0.2s", "--retry", "none", out=tmp_path / "cut", new_group=True)
    partial = tmp_path / "cut" / "norm-digits" / "cells" / ".partial"
    wait_for(lambda: any(partial.glob("*/checkpoint.ckpt")) and workers_of(killed))
    for worker in workers_of(killed):
        os.kill(worker, signal.SIGKILL)
    killed.wait(timeout=300)
    assert cli("run", *LONG, "--checkpoint-every", "0.2s", "--out", tmp_path / "cut")[0] == 0
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    (cell,) = cells(tmp_path / "cut").values()
    assert json.loads((cell / "outcome.json").read_text())["resumed_after_epochs"]
    assert "resuming after epoch" in (cell / "log.txt").read_text()


class Foreign(pl.LightningModule):
    """A module that is not this package's, and notes what it sees."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(size, 10)
        self.seen: dict[int, list[str]] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        digest = hashlib.sha256(images.contiguous().numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        self.seen.setdefault(self.current_epoch, []).append(digest)
        return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches  # which has Lightning lose a loader's place
        return torch.optim.SGD(self.parameters(), lr=0.1)


def drawn(data: Any, epochs: int) -> dict[int, list[str]]:
    """What the loader itself gives, epoch by epoch."""
    loader, seen = data.train_dataloader(), {}
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        seen[epoch] = [
            hashlib.sha256(images.contiguous().numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
            for images, labels in loader
        ]
    return seen


@pytest.mark.parametrize("reload", [0, 1])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_data_serve_a_module_that_is_not_ours_and_follow_its_epoch(digits, photos, tmp_path, reload, streamed):
    if streamed:
        folder = write_images(tmp_path / "photos", {"train": 30, "test": 10})
        _, data = ablations.build(
            data=f"imagefolder:{folder}", in_memory="off", fields={"model": "ufo_vit_pico"}, batch_size=10, epochs=4
        )
        config, size = data.config, 16 * 16 * 3
    else:
        config, size = classifier(digits, augment="shift", train_limit=256, epochs=4), 64
        data = make_data(config, digits)
    expected = drawn(data, 4)
    options = {"reload_dataloaders_every_n_epochs": reload, "limit_val_batches": 0}
    module = Foreign(size)
    kept = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=3)
    trainer(config, tmp_path, kept, **options).fit(module, data)
    assert module.seen == expected
    resumed = Foreign(size)
    last = max(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.rpartition("=")[2]))
    step = int(last.stem.rpartition("=")[2])
    batches = len(expected[0])
    assert step % batches, "it is within an epoch"
    trainer(config, tmp_path, **options).fit(resumed, data, ckpt_path=last)
    assert [digest for epoch in sorted(resumed.seen) for digest in resumed.seen[epoch]] == [
        digest for epoch in range(4) for digest in expected[epoch]
    ][step:]


def test_a_loader_keeps_its_place(digits, shapes):
    for config, info in ((classifier(digits, augment="shift", train_limit=320), digits), (detector(shapes), shapes)):
        loader = make_data(config, info).train_dataloader()
        loader.set_epoch(2)
        given = iter(loader)
        next(given)
        next(given)
        state, rest = loader.state_dict(), list(given)
        other = make_data(config, info).train_dataloader()
        other.load_state_dict(json.loads(json.dumps(state)))
        other.set_epoch(2)
        assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(other, rest, strict=True))
        assert len(list(other)) == len(loader)  # the next time it is whole again
        other.load_state_dict(state)
        other.set_epoch(3)
        assert len(list(other)) == len(loader)  # another epoch is none that was begun


@pytest.mark.slow
def test_a_module_comes_back_from_lightnings_checkpoint(digits, shapes, tmp_path):
    for config, info, kind in (
        (
            classifier(digits, **ALL_ON | {"scale": "matched", "norm": "l2", "epochs": 1, "warmup_epochs": 0}),
            digits,
            Classifier,
        ),
        (detector(shapes, epochs=1), shapes, Detector),
    ):
        module = make_module(config, info)
        own = trainer(config, tmp_path / kind.__name__)
        own.fit(module, make_data(config, info))
        own.save_checkpoint(tmp_path / "last.ckpt")
        loaded = kind.load_from_checkpoint(tmp_path / "last.ckpt")
        assert loaded.config == config
        assert same(weights(loaded), weights(module))


def test_a_module_from_a_checkpoint_begins_a_training_of_its_own(digits, tmp_path):
    """What the checkpoint held of a place in an epoch is for those who go on from it alone."""
    config = classifier(digits, augment="shift", train_limit=320)
    kept = ModelCheckpoint(tmp_path, filename="kept", every_n_train_steps=2)
    trainer(config, tmp_path, kept).fit(make_module(config, digits), make_data(config, digits))
    loaded = Classifier.load_from_checkpoint(next(tmp_path.glob("kept*.ckpt")))
    own = trainer(config, tmp_path)
    own.fit(loaded, make_data(config, digits))
    assert own.global_step == 3 * 5
    assert len(loaded.epoch_hashes) == 3


def test_an_epoch_without_validation_has_no_probes(digits, tmp_path):
    config = classifier(digits, augment="shift", train_limit=128, epochs=4)
    module = make_module(config, digits)
    trainer(config, tmp_path, check_val_every_n_epoch=2).fit(module, make_data(config, digits))
    assert set(pd.read_csv(tmp_path / "probes.csv")["epoch"]) == {2, 4}


@pytest.mark.slow
def test_a_study_gives_a_trained_module_where_its_weights_were_saved(tmp_path, cli):
    quick = ("--norm", "xnorm,l2", "--seed", 0, "--epochs", 1, "--set", "train_limit=128")
    assert cli("run", *quick, "--save-weights", "last", "--out", tmp_path)[0] == 0
    results = ablations.load(tmp_path / "norm-digits")
    module = results.module("xnorm-s0")
    assert isinstance(module, Classifier)
    assert not module.training
    config, (folder,) = module.config, [path for name, path in cells(tmp_path).items() if name == "xnorm-s0"]
    data = make_data(config, prepare(find_source("digits", data_root=tmp_path, download=False, image_size=None)))
    trainer(config, tmp_path).test(module, data, verbose=False)
    module.write_test(tmp_path)
    assert np.array_equal(np.load(tmp_path / "correct.npy"), np.load(folder / "correct.npy"))
    with pytest.raises(UsageError, match=r"there is no cell xnorm-s1; there are .*l2-s0"):
        results.module("xnorm-s1")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(UsageError, match="run it with --save-weights last"):
        results.module("xnorm-s0")


@pytest.mark.slow
def test_a_study_is_run_by_the_trainer_to_the_same_bytes(tmp_path, cli):
    quick = ("--norm", "xnorm,single_l2", "--seed", 0, "--epochs", 2, "--set", "train_limit=128", "--set", "mixup=0.5")
    for by in ("lean", "lightning"):
        code, _, error = cli("run", *quick, "--trainer", by, "--out", tmp_path / by)
        assert code == 0, error
    assert numbers(tmp_path / "lean") == numbers(tmp_path / "lightning")


def test_what_a_trainer_may_not_do_is_said(digits, tmp_path):
    config = classifier(digits, augment="shift", train_limit=128, epochs=1)
    module, data = make_module(config, digits), make_data(config, digits)
    with pytest.raises(MisconfigurationException, match=r"laid out for 1 epochs: Trainer\(max_epochs=1\), not 2"):
        trainer(config, tmp_path, max_epochs=2).fit(module, data)
    with pytest.raises(MisconfigurationException, match="the cell clips gradients itself"):
        trainer(config, tmp_path, gradient_clip_val=0.5).fit(make_module(config, digits), data)
    with pytest.raises(UsageError, match="scored on validation"):
        make_data(config.model_copy(update={"scored_on": "val"}), digits).test_dataloader()
    hot = config.model_copy(update={"lr": 1e30, "warmup_epochs": 0})
    with pytest.raises(Diverged):
        trainer(hot, tmp_path).fit(make_module(hot, digits), make_data(hot, digits))


def test_build_makes_one_cell(tmp_path):
    module, data = ablations.build(norm="l2", data="digits", epochs=2, seed=3, fields={"mixup": 0.5})
    assert (
        module.config.net.norm,
        module.config.seed,
        module.config.optimisation.epochs,
        module.config.augmentation.mixup,
    ) == ("l2", 3, 2, 0.5)
    assert data.config == module.config
    with pytest.raises(ValueError, match="xnrom"):
        ablations.build(norm="xnrom")
    with pytest.raises(UsageError, match="epochs"):
        ablations.build(epochs=0)


def test_the_lean_trainer_calls_the_hooks_that_the_trainer_calls(digits, tmp_path):
    """In its order, but for those of the Trainer's own machinery."""
    config = classifier(digits, augment="shift", train_limit=128, epochs=2)

    class Notes(pl.Callback):
        def __init__(self) -> None:
            self.calls: list[str] = []

    hooks = ("on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start")
    hooks += ("on_before_optimizer_step", "on_train_batch_end", "on_validation_start", "on_validation_epoch_start")
    hooks += ("on_validation_epoch_end", "on_validation_end", "on_train_epoch_end", "on_train_end", "on_fit_end")
    for hook in hooks:

        def note(self: Notes, *_: Any, hook: str = hook) -> None:
            self.calls.append(hook)

        setattr(Notes, hook, note)
    ours, theirs = Notes(), Notes()
    lean = LeanTrainer(config, device=CPU, callbacks=[ours], log_dir=tmp_path)
    lean.fit(make_module(config, digits), make_data(config, digits))
    trainer(config, tmp_path, theirs, num_sanity_val_steps=0).fit(
        make_module(config, digits), make_data(config, digits)
    )
    assert ours.calls == theirs.calls
    assert lean.global_step == 4


TWO_PROCESSES = """
import json, sys, torch, pytorch_lightning as pl
sys.path[:0] = {paths!r}
from ablations.data import DataInfo
from ablations.data.modules import make_data
from ablations.config import CellConfig
from ablations.tasks.make import make_module

devices, out, fields, info = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(1)

class Notes(pl.Callback):
    def __init__(self):
        self.losses, self.images = [], []
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.images.append([hash(image.numpy().tobytes()) for image in batch[0].contiguous()])

if __name__ == "__main__":
    config = CellConfig(**fields)
    info["image_shape"] = tuple(info["image_shape"])
    info = DataInfo(**info)
    module, data, notes = make_module(config, info), make_data(config, info), Notes()
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    quiet |= dict(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
    trainer = pl.Trainer(callbacks=[notes], max_epochs=config.optimisation.epochs, default_root_dir=out, **quiet)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    said = dict(losses=notes.losses, images=notes.images, means=module.epoch_metrics(), test=module.test_metrics(),
                hashes=module.epoch_hashes)
    open(f"{{out}}/{{devices}}-{{trainer.global_rank}}.json", "w").write(json.dumps(said))
"""


@pytest.mark.slow  # three processes, two of which wait for each other
def test_two_processes_share_the_batches_of_one(digits, tmp_path):
    from dataclasses import asdict

    without_batch_norm = {"lpi": False, "patch_embed": "linear"}
    config = classifier(digits, **ALL_ON | without_batch_norm | {"ema_decay": 0.0, "epochs": 2})
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(paths=[str(ROOT)]))
    given = [json.dumps(config.model_dump(mode="json")), json.dumps(asdict(digits), default=str)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine is called
    for devices in (1, 2):
        command = [sys.executable, script, str(devices), str(tmp_path), *given]
        subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=300, capture_output=True)
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    for whole, a, b in zip(one["images"], first["images"], second["images"], strict=True):
        assert sorted(whole) == sorted(a + b)
        assert len(a) == len(b) == 32
    shared = (np.array(first["losses"]) + np.array(second["losses"])) / 2
    np.testing.assert_allclose(shared[:5], one["losses"][:5], rtol=1e-5)
    assert first["hashes"] == second["hashes"] == one["hashes"]
    assert first["means"] == second["means"]
    assert first["means"] == pytest.approx(one["means"], rel=1e-3)
    assert first["test"] == second["test"]
    assert first["test"]["test_accuracy_pct"] == pytest.approx(one["test"]["test_accuracy_pct"], abs=0.3)


def test_processes_take_mirrored_parts_of_a_batch():
    for world_size, size in ((2, 64), (3, 12), (4, 8)):
        parts = [Rank(number, world_size).mirrored(size) for number in range(world_size)]
        assert torch.cat(parts).sort().values.tolist() == list(range(size))
        for part in parts:
            assert (size - 1 - part).sort().values.tolist() == part.tolist()
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        Rank(0, 2).mirrored(50)


@pytest.mark.parametrize("kind", ["in memory", "streamed", "objects"])
def test_the_parts_of_a_batch_are_the_batch(kind, photos, shapes, tmp_path):
    """With the same augmentation: what is drawn for a sample goes by its place in the whole epoch."""
    load: Any
    if kind == "objects":
        config, info, load = detector(shapes, train_sides="48+64"), shapes, partial(load_objects, workers=0)
    else:
        fields = {"batch_size": 12, "policy": "rand_augment", "color_jitter": 0.4}
        info, load = photos, load_in_memory
        if kind == "streamed":
            folder = write_images(tmp_path / "photos", {"train": 60, "test": 10}, px=32)
            source = find_source(f"imagefolder:{folder}", data_root=tmp_path, download=False, image_size=None)
            info, load = prepare(source, in_memory="off"), partial(load_streamed, workers=0)
        config = classifier(info, **fields)
    whole, *parts = (load(config, info, device=CPU, rank=rank) for rank in (Rank(), Rank(0, 2), Rank(1, 2)))
    for data in (whole, *parts):
        data.train.set_epoch(1)
    assert whole.train.hash == parts[0].train.hash
    for batch, *others in zip(whole.train, *(part.train for part in parts), strict=True):
        assert sorted(map(digest, batch[0])) == sorted(digest(image) for other in others for image in other[0])
        assert len(others[0][0]) == len(others[1][0])
    seen = [[len(batch[1]) if kind != "objects" else 1 for batch in data.val] for data in (whole, *parts)]
    assert sum(seen[0]) == sum(seen[1]) + sum(seen[2])
    assert [len(data.val) for data in (whole, *parts)] == list(map(len, seen))


def digest(image: Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
