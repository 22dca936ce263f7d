"""One cell, run for real: its files, its outcomes, and what decides its numbers."""

from __future__ import annotations

import errno
import gc
import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import start
from torch._dynamo.utils import counters

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.data import DataInfo, find_source, prepare
from ablations.data.location import data_folder
from ablations.data.splits import find_rows
from ablations.engine.cell import Result, run_cell
from ablations.tasks import classify
from ablations.tasks.net import build_net
from ablations.training.limits import is_disk_full

HOT = {"lr": 10.0, "grad_clip": 0, "warmup_epochs": 0, "train_limit": None}
SMALL = {"depth": 1, "class_attention": 0, "drop_path": 0.1, "smoke": True}
FILES = {"metrics.csv", "probes.csv", "timing.csv", "correct.npy", "log.txt"}


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


def run(digits: DataInfo, folder: Path, **fields: object) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    short = {"epochs": 2, "train_limit": 256, "norm": "xnorm", "seed": 0}
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": digits.fingerprint}
    return run_cell(make_config(base | short | fields), digits, folder=folder, device=torch.device("cpu"))


def metrics(folder: Path) -> bytes:
    return (folder / "metrics.csv").read_bytes() + (folder / "probes.csv").read_bytes()


def test_a_cell_leaves_its_files_and_its_numbers(digits, tmp_path):
    result = run(digits, tmp_path)
    assert (result.outcome, result.kind) == ("ok", "")
    assert {path.name for path in tmp_path.iterdir()} == FILES
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["train_loss"].is_monotonic_decreasing
    correct = np.load(tmp_path / "correct.npy")
    assert correct.shape == (360,)
    assert result.fields["test_accuracy_pct"] == pytest.approx(100 * correct.mean())
    assert result.fields["epochs_run"] == 2
    probes = pd.read_csv(tmp_path / "probes.csv")
    assert set(probes["probe"]) == {"output_rms", "grad_norm", "mean_gain_q", "mean_gain_kv"}
    assert set(probes["layer"]) == {"blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn"}
    assert (probes.loc[probes["probe"] == "grad_norm", "value"] > 0).all()


def test_a_limited_evaluation_scores_the_drawn_images_and_trains_alike(digits, tmp_path):
    run(digits, tmp_path / "whole")
    result = run(digits, tmp_path / "limited", eval_limit=50)
    rows = find_rows(digits, train_limit=None, eval_limit=50)["test"].rows.numpy()
    whole, limited = (np.load(tmp_path / name / "correct.npy") for name in ("whole", "limited"))
    assert limited.tolist() == whole[rows].tolist()
    assert result.fields["test_accuracy_pct"] == pytest.approx(100 * limited.mean())
    assert result.fields["chance_pct"] == 10
    frames = [pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "limited")]
    assert frames[0]["train_loss"].tolist() == frames[1]["train_loss"].tolist()
    assert frames[0]["batches"].tolist() == frames[1]["batches"].tolist()
    assert (frames[0]["val_loss"] != frames[1]["val_loss"]).all()


@pytest.mark.slow
def test_it_learns_what_chance_cannot_know(digits, tmp_path):
    result = run(digits, tmp_path, epochs=4, train_limit=None)
    assert result.fields["test_accuracy_pct"] > 80


@pytest.mark.parametrize(
    ("norm", "fields", "outcome", "kind", "detail"),
    [
        ("turns_nan", {"epochs": 8}, "diverged", "nan", "train_loss is not finite in epoch 6"),
        ("xnorm", HOT, "diverged", "exploded", "train_loss"),
        ("constant", {"lr": 1e-9, "warmup_epochs": 1}, "diverged", "no_learning", "stayed at chance"),
        ("constant", {"lr": 1e-9, "warmup_epochs": 2}, "ok", "", ""),
        ("constant", {"lr": 1e-9, "smoke": True}, "ok", "", ""),
        ("raises", {}, "failed", "error", "RuntimeError: this arm is broken"),
        ("out_of_memory", {}, "failed", "oom", "alloc"),
    ],
)
@pytest.mark.usefixtures("arms")
def test_outcomes(digits, tmp_path, norm, fields, outcome, kind, detail):
    result = run(digits, tmp_path, norm=norm, **fields)
    assert (result.outcome, result.kind) == (outcome, kind), result.detail
    assert detail in result.detail
    assert bool(result.traceback) == (outcome == "failed")
    measured = outcome == "ok" or kind == "no_learning"
    assert (result.fields["test_accuracy_pct"] is not None) == measured
    assert (tmp_path / "correct.npy").exists() == measured


def test_a_cell_scored_on_validation_opens_no_file_of_the_test_split(digits, tmp_path, monkeypatch):
    whole = run(digits, tmp_path / "whole")
    monkeypatch.setenv("ABLATIONS_CACHE", str(without_test(digits, tmp_path / "cache")))
    alone = run(digits, tmp_path / "alone", scored_on="val")
    assert (alone.outcome, alone.fields["test_accuracy_pct"], alone.fields["test_loss"]) == ("ok", None, None)
    assert not (tmp_path / "alone" / "correct.npy").exists()
    assert metrics(tmp_path / "alone") == metrics(tmp_path / "whole")
    last = pd.read_csv(tmp_path / "alone" / "metrics.csv").iloc[-1]
    for name in ("val_accuracy_pct", "val_loss"):
        assert alone.fields[name] == whole.fields[name] == pytest.approx(last[name], abs=1e-4)
    tested = run(digits, tmp_path / "tested")  # as it should be able to fail
    assert (tested.outcome, "/test_" in tested.detail) == ("failed", True)


def without_test(info: DataInfo, cache: Path) -> Path:
    """Copy a decoded data set into a cache of its own, without the files of its test split."""
    folder = data_folder(info.name, info.fingerprint, streamed=False)
    shutil.copytree(folder, cache / folder.name, ignore=shutil.ignore_patterns("test_*"))
    return cache


@pytest.mark.usefixtures("arms")
def test_a_failed_cell_has_its_traceback_in_the_log(digits, tmp_path):
    run(digits, tmp_path, norm="raises")
    assert "this arm is broken" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_a_cell_that_turns_to_nan_in_its_first_epoch_tells_its_batches(digits, tmp_path):
    more = {"norm": "turns_nan", "batch_size": 8, "train_limit": 1200, "augment": "shift"}
    result = run(digits, tmp_path / "nan", **more)
    other = run(digits, tmp_path / "ok", **(more | {"norm": "xnorm", "epochs": 1}))
    assert (result.outcome, result.kind, result.fields["epochs_run"]) == ("diverged", "nan", 0)
    assert result.fields["epoch_hashes"] == other.fields["epoch_hashes"]
    assert not (tmp_path / "nan" / "metrics.csv").exists()


def test_warnings_go_to_the_log_and_not_to_the_terminal(digits, tmp_path, capfd):
    run(digits, tmp_path, epochs=1)
    assert capfd.readouterr() == ("", "")
    assert "epoch 1: train_loss" in (tmp_path / "log.txt").read_text()


def test_the_global_seed_changes_nothing_and_stays_as_it_is(digits, tmp_path):
    seen = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002  # the global generator is what is tested
        state = torch.get_rng_state()
        run(digits, tmp_path / str(global_seed), drop_path=0.2)
        assert torch.equal(state, torch.get_rng_state())
        seen.append(metrics(tmp_path / str(global_seed)))
    assert seen[0] == seen[1]


def test_another_seed_gives_other_numbers(digits, tmp_path):
    for seed in (0, 1):
        run(digits, tmp_path / str(seed), seed=seed)
    assert metrics(tmp_path / "0") != metrics(tmp_path / "1")


@pytest.mark.parametrize(
    "fields",
    [
        {"drop_path": 0.3},
        {"lpi": False},
        {"lpi": "bn_first"},
        {"ff_ratio": 2},
        {"ff_ratio": 0},
        {"pos_embed": "none"},
        {"pos_embed": "sincos"},
        {"class_attention": 0},
        {"class_norm": "softmax"},
        {"output_gate": True},
        {"change": "num_heads=2"},
        {"patch_embed": "linear"},
        {"patch": 4},
        {"layer_scale": 0.1},
        {"depth": 1},
        {"embed_dim": 64},
        {"attn_dim": 16},
        {"num_heads": 2},
        {"lr": 1e-3},
        {"min_lr_share": 0.9},
        {"warmup_epochs": 0},
        {"weight_decay": 50.0},
        {"label_smoothing": 0.0},
        {"grad_clip": 0.1},
        {"batch_size": 32},
        {"augment": "none"},
        {"augment": "resized_crop_flip"},
        {"policy": "rand_augment"},
        {"policy": "rand_augment", "policy_magnitude": 2.0},
        {"policy": "rand_augment", "policy_magnitude_std": 3.0},
        {"policy": "rand_augment", "policy_ops": 1},
        {"policy": "auto_augment"},
        {"policy": "auto_augment_cifar"},
        {"color_jitter": 0.4},
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.8, "mix_probability": 0.5},
        {"erasing": 0.25},
        {"repeats": 2},
        {"ema_decay": 0.9},
        {"warmup_lr_share": 0.5},
        {"train_limit": 200},
        {"eval_limit": 100},
        {"precision": "bf16-mixed"},
        {"model": "ufo_vit_nano"},
    ],
    ids=lambda fields: ",".join(f"{field}={value}" for field, value in fields.items()),
)
def test_no_option_is_without_effect(digits, tmp_path, fields):
    plain = run_plain(digits, tmp_path)
    run(digits, tmp_path / "changed", **fields)
    assert metrics(tmp_path / "changed") != plain


PLAIN: list[bytes] = []


def run_plain(digits: DataInfo, tmp_path: Path) -> bytes:
    """Run the cell without changes once for all tests of this process."""
    if not PLAIN:
        run(digits, tmp_path / "plain")
        PLAIN.append(metrics(tmp_path / "plain"))
    return PLAIN[0]


def test_bf16_trains_on_the_cpu(digits, tmp_path):
    result = run(digits, tmp_path, precision="bf16-mixed", epochs=4, train_limit=None)
    assert result.outcome == "ok"
    assert result.fields["test_accuracy_pct"] > 80


def test_matched_scale_changes_every_arm_but_xnorm(digits, tmp_path):
    run(digits, tmp_path / "own")
    run(digits, tmp_path / "matched", scale="matched")
    assert (tmp_path / "own" / "metrics.csv").read_bytes() == (tmp_path / "matched" / "metrics.csv").read_bytes()
    for scale in ("own", "matched"):
        run(digits, tmp_path / f"{scale}_l2", norm="single_l2", scale=scale)
    own, matched = (pd.read_csv(tmp_path / f"{scale}_l2" / "metrics.csv") for scale in ("own", "matched"))
    assert (own["batches"] == matched["batches"]).all()
    assert (own["train_loss"] != matched["train_loss"]).all()
    probes = pd.read_csv(tmp_path / "matched_l2" / "probes.csv").query("probe == 'matched_gain'")
    assert set(probes["layer"]) == {"blocks.0.attn", "blocks.1.attn", "class_blocks.0.attn"}
    assert (probes["value"] != 1).all()
    assert (probes.groupby("layer")["value"].nunique() == 1).all()


@pytest.mark.parametrize(("norm", "outcome", "kind"), [("constant", "failed", "error"), ("is_nan", "diverged", "nan")])
@pytest.mark.usefixtures("arms")
def test_a_scale_that_cannot_be_matched_is_said(digits, tmp_path, norm, outcome, kind):
    result = run(digits, tmp_path, norm=norm, scale="matched")
    assert (result.outcome, result.kind) == (outcome, kind)
    assert "the scale of blocks.0.attn cannot be matched" in result.detail


@pytest.mark.slow
def test_a_compiled_net_is_compiled_once_for_all_cells_of_an_arm(digits, tmp_path, monkeypatch):
    nets = []

    def build(config, **sizes):
        net = build_net(config, **sizes)
        nets.append(weakref.ref(net))
        return net

    def compiled(folder: str, norm: str, **fields: object) -> tuple[bytes, int]:
        result = run(digits, tmp_path / folder, norm=norm, compile=True, **SMALL, **fields)
        assert result.outcome == "ok", result.detail
        return metrics(tmp_path / folder), counters["stats"]["unique_graphs"]

    monkeypatch.setattr(classify, "build_net", build)
    before = counters["stats"]["unique_graphs"]
    first, after_first = compiled("a", "xnorm")
    assert after_first == before + 1
    assert compiled("b", "xnorm", seed=1)[1] == after_first
    other, after_other = compiled("c", "xnorm", batch_size=32)
    assert after_other == after_first + 1
    assert compiled("d", "xnorm") == (first, after_other)
    gc.collect()
    assert [net() for net in nets] == [None] * 4  # what is kept is code

    torch.compiler.reset()
    assert compiled("e", "xnorm", batch_size=32)[0] == other  # alone, and after another shape

    run(digits, tmp_path / "plain", **SMALL)
    plain, with_code = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("plain", "a"))
    np.testing.assert_allclose(with_code["train_loss"], plain["train_loss"], rtol=1e-3)
    assert pd.read_csv(tmp_path / "a" / "probes.csv")["value"].notna().all()


@pytest.mark.slow
def test_a_compiled_run_ends_without_a_word_too_many(tmp_path):
    settings = [f"--set={field}={value}" for field, value in (SMALL | {"compile": True}).items() if field != "smoke"]
    process = start("--smoke", "--norm", "xnorm", "--seed", 0, *settings, out=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_an_arm_that_cannot_be_compiled_whole_fails_and_says_so(digits, tmp_path):
    result = run(digits, tmp_path, norm="prints", compile=True)
    assert (result.outcome, result.kind) == ("failed", "error")
    assert "Unsupported" in result.detail, result.detail


def test_golden_losses(digits, tmp_path):
    run(digits, tmp_path)
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    losses = pd.read_csv(tmp_path / "metrics.csv")[["train_loss", "val_loss"]].to_numpy()
    # Other processors sum in another order; 32 steps let the last bits grow.
    np.testing.assert_allclose(losses, golden["train_loss, val_loss"], rtol=2e-3)


def test_a_full_quota_is_a_full_disk_also_where_torch_hides_it(tmp_path, monkeypatch):
    hidden = RuntimeError("enforce fail: unexpected pos 64 vs 0")
    hidden.__context__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert is_disk_full(hidden, tmp_path)
    hidden.__context__ = FileNotFoundError(errno.ENOENT, "No such file")
    assert not is_disk_full(hidden, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert is_disk_full(hidden, tmp_path)  # what it hides says nothing of the disk
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path)


def test_a_cell_that_finds_no_room_says_so(digits, tmp_path, monkeypatch):
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ablations.training.callbacks.write_rows", no_room)
    result = run(digits, tmp_path)
    assert result.disk_full
    assert "No space left on device" in result.detail


@pytest.mark.usefixtures("arms")
def test_no_other_failure_is_a_full_disk(digits, tmp_path):
    assert not run(digits, tmp_path, norm="raises").disk_full
