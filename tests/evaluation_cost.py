"""The share of a cell's time that evaluation takes, beside a bare loop's steps; no test, since it is timed.

    .venv/bin/python tests/evaluation_cost.py --data cifar10 --data-root DIR [--rounds N] [--epochs N] [--images N]

Images in batches of 32, one thread. Each contender trains the same net for the same steps in a process of its own,
and the order reverses from round to round: a bare loop that evaluates nothing, a cell, and a cell with `eval_limit`.
A process's CPU seconds are printed beside its wall-clock seconds, since other work on the machine lengthens the latter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from ablations.bench.bare import train_bare
from ablations.config import CellConfig
from ablations.config.make import make_config
from ablations.config.recipes import defaults
from ablations.data import DataInfo, find_source, load_splits, prepare
from ablations.engine.cell import run_cell

CPU = torch.device("cpu")

CONTENDERS: dict[str, int | None] = {"bare steps": None, "eval_limit=1000": 1000, "all images": None}
"""Contender to the largest number of images that it evaluates of each split."""


def measure(contender: str, config: CellConfig, info: DataInfo) -> dict[str, float]:
    """Train; return the wall-clock and CPU seconds, and the wall-clock ones of a cell's steps and evaluations."""
    with tempfile.TemporaryDirectory() as name:
        wall, cpu = time.perf_counter(), time.process_time()
        if contender == "bare steps":
            torch.set_num_threads(1)
            splits = load_splits(info, train_limit=config.images.train_limit, device=CPU)
            one = {split: replace(own, labels=own.labels[:1], rows=own.rows[:1]) for split, own in splits.items()}
            train_bare(config, info, splits=splits | {split: one[split] for split in ("val", "test")})
        else:
            result = run_cell(config, info, folder=Path(name), device=CPU)
            assert result.outcome == "ok", result.detail
        row = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        if contender != "bare steps":
            timing = pd.read_csv(Path(name) / "timing.csv")
            val_s = float(timing["val_s"].sum())
            evaluated = info.num_evaluated(config.images.eval_limit)
            test_s = val_s / config.optimisation.epochs * evaluated["test"] / evaluated["val"]
            row |= {"train_s": float(timing["train_s"].sum()), "eval_s": val_s + test_s}
    return row


def make_cell(contender: str, options: argparse.Namespace, info: DataInfo) -> CellConfig:
    """Return the cell of a contender; smoke, so that none ends as not learning."""
    base = defaults(image_side=32, flips=info.flips) | {"data": info.name, "data_fingerprint": info.fingerprint}
    own = {"model": options.model, "norm": "xnorm", "seed": 0, "batch_size": 32, "smoke": True, "warmup_epochs": 0}
    own |= {"epochs": options.epochs, "train_limit": options.images, "eval_limit": CONTENDERS[contender]}
    return make_config(base | own)


def main(options: argparse.Namespace) -> None:
    """Print every measurement, then of each contender the medians and ranges."""
    info = prepare(find_source(options.data, data_root=options.data_root, download=False, image_size=None))
    if options.contender:
        print(json.dumps(measure(options.contender, make_cell(options.contender, options, info), info)))
        return
    rows = []
    for number in range(options.rounds):
        for contender in list(CONTENDERS)[:: -1 if number % 2 else 1]:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", contender]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({"contender": contender, **json.loads(printed.splitlines()[-1])})
            print(rows[-1], flush=True)
    for contender, own in pd.DataFrame(rows).groupby("contender", sort=False):
        for quantity in own.columns[1:]:
            values = own[quantity].dropna().tolist()
            if values:
                print(f"{contender} {quantity}: {statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="ufo_vit_deep24")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    main(parser.parse_args())
