"""Studies on a device: kept workers, cells at once by memory, a lack of memory that costs only its cell."""

from __future__ import annotations

import json
from datetime import datetime
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import find_source, prepare
from ablations.engine.worker import Task, Worker

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("runs")]  # they measure memory and time

STEPS_RTOL = 1e-4
"""Of the losses of the first three steps in float32, as in test_cells.py."""


def outcomes(out: Path) -> list[dict[str, Any]]:
    """Return the outcome of every cell of the one study, in the order of their start."""
    read = [json.loads(file.read_text()) for file in out.glob("*/cells/[!.]*/outcome.json")]
    return sorted(read, key=lambda outcome: outcome["started"])


def test_a_kept_worker_runs_cell_after_cell_to_the_same_numbers(device, cache, tmp_path):
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": info.fingerprint}
    exact = {"deterministic": True} if device.type == "cuda" else {}
    config = make_config(base | {"epochs": 1, "warmup_epochs": 0, "train_limit": 128, "norm": "l2", "seed": 0} | exact)
    worker = Worker(reuse=True)
    pid, results = worker.process.pid, []
    try:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            chosen = {"config": config, "info": info, "folder": tmp_path / name, "device": device, "numerics": "1"}
            worker.start([Task(**chosen, options=CellOptions(), plugins=(), plugin_hash="")])
            assert connection.wait(worker.waitables, 90), "nothing came"
            (result,) = worker.result()
            results.append(result.fields)
            assert worker.process.is_alive()
            assert worker.process.pid == pid
    finally:
        worker.kill()
    assert results[0]["test_loss"] == results[1]["test_loss"]


def test_as_many_cells_run_at_once_as_the_first_ones_memory_allows(cuda, cli, tmp_path):
    code, out, err = cli(
        "run",
        "--norm",
        "xnorm",
        "--seeds",
        4,
        "--epochs",
        8,
        "--jobs-per-gpu",
        "auto",
        "--device",
        cuda,
        "--out",
        tmp_path,
    )
    assert code in (0, 1), out + err  # 1: nothing is learned
    first, *others = outcomes(tmp_path)
    assert first["peak_reserved_mib"] > 0
    assert first["device"] == f"cuda {torch.cuda.get_device_name(cuda)}"
    starts = [datetime.fromisoformat(other["started"]).timestamp() for other in others]
    assert max(starts) - min(starts) < max(other["seconds"] for other in others), "one after the other"


def test_stacked_seeds_agree_with_each_alone(device, cli, tmp_path):
    short = ("--norm", "l2", "--seeds", 2, "--epochs", 3, "--set", "warmup_epochs=0", "--set", "train_limit=64")
    for name, stack in (("alone", 1), ("stacked", 2)):
        code, out, err = cli("run", *short, "--stack", stack, "--device", device, "--out", tmp_path / name)
        assert code in (0, 1), out + err  # 1: nothing is learned in three steps
    losses = [
        [pd.read_csv(file)["train_loss"].tolist() for file in sorted((tmp_path / name).glob("*/cells/*/metrics.csv"))]
        for name in ("alone", "stacked")
    ]
    assert len(losses[0]) == 2
    by_seed = [sorted(each) for each in losses]  # the folders' names end in hashes
    for alone, stacked in zip(*by_seed, strict=True):
        assert stacked == pytest.approx(alone, rel=STEPS_RTOL)


def test_a_cell_without_memory_fails_alone(device, cli, tmp_path):
    small = ("--set", "train_limit=64", "--epochs", 1, "--set", "warmup_epochs=0", "--set", "patch=2")
    arms = ("--compare", "model", "--model", "ufo_vit_pico,ufo_vit_s", "--seeds", 1, "--memory-per-cell", "250MiB")
    jobs = "--jobs" if device.type == "cpu" else "--jobs-per-gpu"
    line = ("--norm", "xnorm", *arms, *small, "--retry", "none", jobs, 1, "--device", device, "--out", tmp_path)
    code, out, err = cli("run", *line)
    assert code == 1, out + err
    ended = {}
    for file in tmp_path.glob("*/cells/[!.]*/outcome.json"):
        outcome = json.loads(file.read_text())
        model = json.loads(file.with_name("config.json").read_text())["model"]
        ended[model] = f"{outcome['outcome']} {outcome['kind']}"
    assert not ended["ufo_vit_pico"].startswith("failed")
    assert ended["ufo_vit_s"] == "failed oom"
