"""What the probes cost a cell, by the clock around each of their methods; no test, since it is timed.

    .venv/bin/python tests/probe_cost.py [ROUNDS]

Two cells on digits: the default, whose epochs last a third of a second, and one with the net and the batch that 32-px
images get by default. A whole cell with and without probes wanders by more than they take; on a CPU nothing of theirs
goes on after a method has returned, so the clock around it tells all.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.data import find_source, prepare
from ablations.engine import cell
from ablations.training import callbacks, module
from ablations.training.callbacks import Probes

CELLS = {"digits": {}, "a net for 32 px": {"model": "ufo_vit_nano", "batch_size": 128, "epochs": 6}}
METHODS = ("on_before_optimizer_step", "on_validation_epoch_start", "on_train_epoch_end")


class TimedProbes(Probes):
    """Probes that note how long they take, listening included."""

    def __init__(self) -> None:
        super().__init__()
        clocks.append(0.0)
        for name in METHODS:
            setattr(self, name, timed(getattr(self, name)))


clocks: list[float] = []
"""Seconds of the probes of each cell."""


def timed(call):
    """Add a call's time to the last clock."""

    def run(*arguments):
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            clocks[-1] += time.perf_counter() - started

    return run


def share(fields: dict[str, object], info: object) -> float:
    """Run a cell; return the share of its time that the probes took, in per cent."""
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": info.fingerprint}
    config = make_config(base | {"norm": "xnorm", "seed": 0} | fields)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = cell.run_cell(config, info, folder=Path(folder), device=torch.device("cpu"))
        took_s = time.perf_counter() - started
    assert result.outcome == "ok", result.detail
    print(f"{clocks[-1]:.3f} s of {took_s:.2f} s", flush=True)
    return 100 * clocks[-1] / took_s


def main(rounds: int) -> None:
    """Print the share that the probes take: of each cell the median over rounds and the quartiles."""
    module.Probes, callbacks.rms = TimedProbes, timed(callbacks.rms)
    info = prepare(find_source("digits", data_root=Path("data"), download=False, image_size=None))
    shares: dict[str, list[float]] = {name: [] for name in CELLS}
    for number in range(rounds + 1):
        for name, fields in CELLS.items():
            own = share(fields, info)
            if number:  # the first round warms up
                shares[name].append(own)
    for name, own in shares.items():
        low, middle, high = statistics.quantiles(own, n=4)
        print(f"{name}: {middle:.2f} % [{low:.2f}, {high:.2f}] over {len(own)} rounds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
