"""Checkpoints, weights and loggers: what is beside a cell's numbers, and never changes or costs them."""

from __future__ import annotations

import errno
import json
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import FILES_OF_NUMBERS, write_images
from safetensors import safe_open

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import DataInfo, find_source, prepare
from ablations.engine.cell import run_cell
from ablations.engine.result import Result
from ablations.tasks.net import build_net
from ablations.training import checkpoint
from ablations.training.checkpoint import Checkpoints, trained_with
from ablations.training.loop import LeanTrainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


def run(
    digits: DataInfo,
    folder: Path,
    *,
    numerics: str = "1",
    epochs: int = 3,
    norm: str = "xnorm",
    **options: object,
) -> Result:
    folder.mkdir(exist_ok=True)
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": digits.fingerprint}
    config = make_config(base | {"epochs": epochs, "train_limit": 256, "norm": norm, "seed": 0})
    chosen = CellOptions(**options)
    return run_cell(config, digits, folder=folder, device=CPU, options=chosen, numerics=numerics)


def numbers(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES_OF_NUMBERS]


@pytest.fixture
def plain(digits, tmp_path) -> list[bytes]:
    run(digits, tmp_path / "plain")
    return numbers(tmp_path / "plain")


def test_a_checkpoint_changes_no_number_and_loads_without_running_code(digits, plain, tmp_path):
    result = run(digits, tmp_path / "saved", checkpoint_every=1)
    assert numbers(tmp_path / "saved") == plain
    assert result.fields["resumed_after_epochs"] == []
    saved = torch.load(tmp_path / "saved" / "checkpoint.ckpt", weights_only=True)
    made_by = {"format": "2", "numerics": "1", "torch": torch.__version__, "device": "cpu", "trainer": "lean"}
    assert saved["ablations"]["made_by"] == made_by
    assert not list((tmp_path / "saved").glob("*.partial"))


RICH = {
    "augment": "resized_crop_flip",
    "policy": "rand_augment",
    "color_jitter": 0.4,
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "repeats": 2,
    "ema_decay": 0.99,
    "drop_path": 0.1,
    "scale": "matched",
    "norm": "l2",
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [RICH, {"model": "timm:test_vit", "drop_path": 0.2}], ids=["rich", "timm"])
def test_a_cell_with_every_augmentation_or_a_net_of_timm_goes_on_to_the_same_numbers(tmp_path, fields):
    images = write_images(tmp_path / "images", {"train": 40, "test": 10})
    info = prepare(find_source(f"imagefolder:{images}", data_root=tmp_path, download=False, image_size=None))
    base = recipes.defaults(image_side=16, flips=True) | {"data": info.name, "data_fingerprint": info.fingerprint}
    base |= {"epochs": 3, "batch_size": 16, "norm": "xnorm", "seed": 0}
    config = make_config(base | fields)

    def go(name: str, **options: object) -> Result:
        folder, chosen = tmp_path / name, CellOptions(**options)
        folder.mkdir(exist_ok=True)
        return run_cell(config, info, folder=folder, device=CPU, options=chosen, numerics="1")

    go("whole")
    go("parts", checkpoint_every=2)
    (tmp_path / "parts" / "metrics.csv").unlink()
    assert go("parts").fields["resumed_after_epochs"] == [2]
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3]), (2, [2]), (0, []), (None, [])])
def test_when_checkpoints_are_written(digits, tmp_path, monkeypatch, every, epochs):
    seen = []
    save = torch.save
    monkeypatch.setattr(
        torch, "save", lambda saved, file: (seen.append(saved["ablations"]["epochs"]), save(saved, file))
    )
    run(digits, tmp_path / "c", checkpoint_every=every)
    assert seen == epochs


@pytest.mark.parametrize(
    ("limit", "every", "steps"),
    [
        ("EPOCH_END_S", None, [4, 8, 12]),
        ("WITHIN_EPOCH_S", None, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
        ("", timedelta(microseconds=1), [*range(1, 13)]),
        ("", timedelta(hours=1), []),
    ],
)
def test_a_long_epoch_has_checkpoints_at_its_end_and_within(digits, tmp_path, monkeypatch, limit, every, steps):
    seen: list[int] = []
    plain = LeanTrainer.save_checkpoint
    monkeypatch.setattr(
        LeanTrainer, "save_checkpoint", lambda self, path: (seen.append(self.global_step), plain(self, path))
    )
    if limit:
        monkeypatch.setattr(checkpoint, limit, 0.0)
    run(digits, tmp_path / "c", checkpoint_every=every)
    assert seen == steps


@pytest.mark.usefixtures("arms")
@pytest.mark.parametrize("norm", ["xnorm", "noisy"])
def test_a_cell_whose_test_was_cut_off_is_only_tested(digits, tmp_path, norm):
    whole = run(digits, tmp_path / "c", norm=norm, checkpoint_every=3)
    before = numbers(tmp_path / "c")
    (tmp_path / "c" / "correct.npy").unlink()
    (tmp_path / "c" / "metrics.csv").unlink()
    result = run(digits, tmp_path / "c", norm=norm)
    assert result.fields["resumed_after_epochs"] == [3]
    assert (result.fields["epochs_run"], len(result.fields["epoch_hashes"])) == (3, 3)
    assert numbers(tmp_path / "c") == before
    assert result.fields["test_loss"] == whole.fields["test_loss"]


def zero_the_middle(path: Path) -> None:
    """As a disk may give back a block that it has lost."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        zero_the_middle,
        lambda path: torch.save({"epoch": 1}, path),
    ],
    ids=["cut off", "empty", "zeros in the middle", "foreign"],
)
def test_a_checkpoint_that_cannot_be_used_is_not_and_the_log_says_so(digits, plain, tmp_path, damage):
    run(digits, tmp_path / "c", checkpoint_every=2)
    damage(tmp_path / "c" / "checkpoint.ckpt")
    result = run(digits, tmp_path / "c")
    assert result.fields["resumed_after_epochs"] == []
    assert "cannot be read, so the cell starts from scratch" in (tmp_path / "c" / "log.txt").read_text()
    assert numbers(tmp_path / "c") == plain


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError(errno.EIO, "Input/output error"), "error"), (MemoryError(), "oom")], ids=str
)
def test_a_checkpoint_that_cannot_be_read_now_fails_the_cell_and_stays(
    digits, plain, tmp_path, monkeypatch, error, kind
):
    def fails(*_: object, **__: object) -> None:
        raise error

    run(digits, tmp_path / "c", checkpoint_every=2)
    before = (tmp_path / "c" / "checkpoint.ckpt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fails)
        result = run(digits, tmp_path / "c", checkpoint_every=1)
    assert (result.outcome, result.kind) == ("failed", kind)
    assert (tmp_path / "c" / "checkpoint.ckpt").read_bytes() == before
    assert run(digits, tmp_path / "c").fields["resumed_after_epochs"] == [2]
    assert numbers(tmp_path / "c") == plain


def test_changed_versionstart_a_cell_anew_and_the_log_says_so(digits, tmp_path):
    run(digits, tmp_path / "c", checkpoint_every=2)
    assert run(digits, tmp_path / "c", numerics="2").fields["resumed_after_epochs"] == []
    assert "other numerics, torch or kind of device" in (tmp_path / "c" / "log.txt").read_text()


def test_seconds_of_earlier_attempts_count(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.time, "monotonic", iter([0.0, *[1000.0] * 9]).__next__)
    run(digits, tmp_path / "c", checkpoint_every=2)
    monkeypatch.undo()
    assert 1000 < run(digits, tmp_path / "c").fields["seconds"] < 1100


@pytest.mark.slow
def test_weights_are_kept_on_request_and_fit_the_net(digits, plain, tmp_path):
    run(digits, tmp_path / "none")
    assert not (tmp_path / "none" / "weights.safetensors").exists()
    run(digits, tmp_path / "c", save_weights=True)
    assert numbers(tmp_path / "c") == plain
    with safe_open(tmp_path / "c" / "weights.safetensors", framework="pt") as file:
        config = make_config(json.loads(file.metadata()["config"]))
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    net = build_net(config, image_shape=digits.image_shape, num_classes=10)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.load_state_dict(weights, strict=True)
    assert any(not torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_tensorboard_gets_every_epoch_and_the_test(digits, plain, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(digits, tmp_path / "c", loggers=("tensorboard",), log_folder=str(tmp_path / "logs" / "study"))
    assert numbers(tmp_path / "c") == plain
    (folder,) = {path.parent for path in (tmp_path / "logs").rglob("events.out.*")}
    events = EventAccumulator(str(folder)).Reload()
    assert {"train_loss", "val_loss", "val_accuracy_pct", "test_accuracy_pct"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val_loss")] == [1, 2, 3]
    tested = events.Scalars("test_accuracy_pct")[0].value
    assert tested == pytest.approx(result.fields["test_accuracy_pct"], rel=1e-6)


@pytest.mark.parametrize("method", ["__init__", "log_hyperparams", "log_metrics", "finalize"])
def test_a_logger_that_fails_costs_the_cell_nothing(digits, plain, tmp_path, monkeypatch, method):
    from pytorch_lightning.loggers import TensorBoardLogger

    def fails(*_: object, **__: object) -> None:
        raise ValueError("no connection")

    monkeypatch.setattr(TensorBoardLogger, method, fails)
    result = run(digits, tmp_path / "c", loggers=("tensorboard",), log_folder=str(tmp_path / "logs"))
    assert result.outcome == "ok"
    assert numbers(tmp_path / "c") == plain
    assert "the logger tensorboard is dropped: ValueError: no connection" in (tmp_path / "c" / "log.txt").read_text()


def test_a_checkpoint_of_another_kind_of_device_is_not_gone_on_from(digits, tmp_path):
    run(digits, tmp_path / "a", epochs=1, checkpoint_every=1)
    devices = {"cpu": "lean", "cuda:0": "lean", "cpu:0": "lightning"}
    made_by = [trained_with(numerics="1", device=torch.device(name), trainer=by) for name, by in devices.items()]
    of_cpu, of_gpu, of_lightning = (Checkpoints(tmp_path / "a", every=0, made_by=one).load() for one in made_by)
    assert of_cpu["global_step"] == 4
    assert of_gpu is None
    assert of_lightning is None


@pytest.mark.slow
def test_tensorboard_shows_each_epoch_once_however_often_it_was_trained(digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"loggers": ("tensorboard",), "log_folder": str(tmp_path / "logs" / "study")}
    for attempt in range(4):
        run(digits, tmp_path / "c", checkpoint_every=3 if attempt else 2, **options)
        if attempt == 2:
            (tmp_path / "c" / "checkpoint.ckpt").unlink()
    assert len(list((tmp_path / "logs" / "study").glob("events.out.*"))) == 4
    events = EventAccumulator(str(tmp_path / "logs" / "study")).Reload()
    assert [event.step for event in events.Scalars("val_loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("test_accuracy_pct")] == [4]


@pytest.mark.slow
def test_a_run_of_wandb_is_gone_on_with_where_the_cell_is(digits, tmp_path, monkeypatch):
    from pytorch_lightning import loggers

    class Wandb(loggers.CSVLogger):
        ids: ClassVar[list[str]] = []

        def __init__(self, *, name: str, save_dir: Path, project: str, id: str) -> None:  # noqa: A002  # Lightning's
            super().__init__(save_dir, name=name)
            assert project == "project"
            self.ids.append(id)

    monkeypatch.setattr(loggers, "WandbLogger", Wandb)
    options = {"loggers": ("wandb",), "log_folder": str(tmp_path / "project" / "logs" / "cell")}
    for version in ("1", "1", "2"):
        run(digits, tmp_path / "c", checkpoint_every=2, numerics=version, **options)
        assert "is dropped" not in (tmp_path / "c" / "log.txt").read_text()
    first, second, third = Wandb.ids
    assert first == second != third


@pytest.mark.usefixtures("arms")
def test_the_epoch_that_diverged_reaches_the_loggers(digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"loggers": ("tensorboard",), "log_folder": str(tmp_path / "logs" / "study")}
    result = run(digits, tmp_path / "c", epochs=8, norm="turns_nan", **options)
    assert result.outcome == "diverged"
    events = EventAccumulator(str(tmp_path / "logs" / "study")).Reload()
    assert [event.step for event in events.Scalars("val_loss")][-1] == result.fields["epochs_run"]
