"""The benchmark: its loop trains what the harness trains, its numbers are what they say, nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from ablations.bench.bare import Trained, train_bare
from ablations.bench.harness import CONTENDERS, Grid, Row, bench_harness
from ablations.bench.processes import CommandFailed, run_all
from ablations.bench.summary import describe, ratios, summarise
from ablations.config import CellConfig, recipes
from ablations.config.make import make_config
from ablations.data import DataInfo, find_source, load_splits, prepare
from ablations.engine.cell import run_cell

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


def make_cell(digits: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": digits.fingerprint}
    return make_config(base | {"epochs": 2, "norm": "xnorm", "seed": 0} | fields)


def train(config: CellConfig, digits: DataInfo) -> Trained:
    """Train the bare loop with the harness's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.run.threads_per_cell)
    try:
        return train_bare(config, digits, splits=load_splits(digits, train_limit=config.images.train_limit, device=CPU))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 1},
        {"train_limit": 256, "drop_path": 0.3, "norm": "l2", "seed": 3},
        {"train_limit": 256, "grad_clip": 0, "warmup_epochs": 0, "label_smoothing": 0.0},
    ],
    ids=["default", "drop_path", "no_clipping"],
)
def test_the_bare_loop_gives_the_harness_numbers(digits, tmp_path, fields):
    config = make_cell(digits, **fields)
    result = run_cell(config, digits, folder=tmp_path, device=CPU)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    bare = train(config, digits)
    # The same operations on one thread; only the means of an epoch are summed in another order.
    assert bare.train_loss == pytest.approx(metrics["train_loss"].tolist(), rel=1e-5)
    assert bare.val_loss == pytest.approx(metrics["val_loss"].tolist(), rel=1e-5)
    assert bare.val_accuracy_pct == pytest.approx(metrics["val_accuracy_pct"].tolist(), rel=1e-5)
    assert bare.test_loss == pytest.approx(result.fields["test_loss"], rel=1e-5)
    assert bare.test_accuracy_pct == pytest.approx(result.fields["test_accuracy_pct"])
    assert len(bare.epoch_s) == config.optimisation.epochs
    assert 0 < sum(bare.epoch_s) < bare.seconds


def test_the_bare_loop_refuses_what_it_does_not_do(digits):
    for field, value in (("precision", "bf16-mixed"), ("compile", True)):
        with pytest.raises(ValueError, match=str(value)):
            train(make_cell(digits, **{field: value}), digits)


def test_the_cells_are_those_of_the_command(cli, tmp_path):
    grid = Grid()
    cells = grid.cells(out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert (len(cells), {cell.optimisation.epochs for cell in cells}) == (24, {8})
    shorter = Grid(norms=("l2",), num_seeds=2, epochs=3)
    for asked in (grid, shorter):
        code, out, _ = cli("run", *asked.arguments, "--out", tmp_path, "--dry-run", "--json")
        assert code == 0
        assert json.loads(out)["states"].keys() == {cell.id for cell in asked.cells(out=tmp_path / "none")}
    cells = shorter.cells(out=tmp_path / "none")
    assert [(cell.net.norm, cell.seed, cell.optimisation.epochs) for cell in cells] == [("l2", 0, 3), ("l2", 1, 3)]


def make_rows(seconds: dict[tuple[str, str], tuple[int, list[float]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"round": number, "quantity": quantity, "contender": contender, "num_cells": cells, "seconds": value}
            for (quantity, contender), (cells, values) in seconds.items()
            for number, value in enumerate(values, start=1)
        ]
    )


KNOWN = {
    ("grid", "ours"): (24, [86.4, 96.0, 72.0]),  # 1000, 900, 1200 cells an hour
    ("grid", "bare"): (24, [172.8, 216.0, 108.0]),  # 500, 400, 800
    ("grid", "bare_x2"): (24, [108.0, 144.0, 86.4]),  # 800, 600, 1000
    ("grid", "fresh"): (4, [144.0, 115.2, 180.0]),  # 100, 125, 80
    ("grid", "fresh_x2"): (4, [72.0, 57.6, 90.0]),  # 200, 250, 160
    ("epoch", "ours"): (1, [0.3, 0.2, 0.25]),
    ("epoch", "bare"): (1, [0.2, 0.2, 0.25]),
    ("cell", "ours"): (1, [3.0, 4.0, 2.0]),
    ("cell", "bare"): (1, [2.0, 2.5, 2.0]),
}


def test_medians_and_ranges_are_those_computed_by_hand():
    table = summarise(make_rows(KNOWN)).set_index(["quantity", "contender"])
    assert table["num_rounds"].eq(3).all()
    assert table["num_cells"].to_dict() == {key: cells for key, (cells, _) in KNOWN.items()}
    numbers = {key: tuple(row) for key, row in zip(table.index, table[["median", "low", "high"]].values, strict=True)}
    assert numbers["grid", "ours"] == pytest.approx((1000, 900, 1200))
    assert numbers["grid", "bare_x2"] == pytest.approx((800, 600, 1000))
    assert numbers["grid", "fresh"] == pytest.approx((100, 80, 125))
    assert numbers["epoch", "ours"] == pytest.approx((0.25, 0.2, 0.3))
    assert numbers["cell", "bare"] == pytest.approx((2.0, 2.0, 2.5))


def test_ratios_are_those_computed_by_hand():
    rows = make_rows(KNOWN)
    table = ratios(rows.sample(frac=1, random_state=0))  # in whatever order they come
    numbers = {(line.quantity, line.ratio): (line.value, line.low, line.high) for line in table.itertuples()}
    expected = {
        ("grid", "ours / bare"): (2.0, 1.5, 2.25),
        ("grid", "ours / bare_x2"): (1.25, 1.2, 1.5),
        ("grid", "ours / max(bare, bare_x2)"): (1.25, 1.2, 1.5),
        ("grid", "ours / fresh"): (10.0, 7.2, 15.0),
        ("grid", "ours / fresh_x2"): (5.0, 3.6, 7.5),
        ("epoch", "ours / bare"): (1.0, 1.0, 1.5),  # 1.5, 1, 1
        ("cell", "ours / bare"): (1.5, 1.0, 1.6),
    }
    assert numbers.keys() == expected.keys()
    for key, values in expected.items():
        assert numbers[key] == pytest.approx(values), key
    text = "\n".join(describe(rows))
    assert "4 cells a round, rounds: 3" in text
    assert "10.000 [7.200, 15.000]" in text


@pytest.mark.process
def test_a_contender_that_fails_raises_with_what_it_wrote(tmp_path):
    fine, broken = "print('fine')", "import sys; print('before'); sys.exit('this contender is broken')"
    with pytest.raises(CommandFailed, match=r"exit code 1 of .* -c") as failure:
        run_all([[sys.executable, "-c", code] for code in (fine, broken)], at_once=1, logs=tmp_path)
    assert str(failure.value).endswith("\nthis contender is broken")


@pytest.mark.process
@pytest.mark.parametrize("at_once", [1, 2])
def test_commands_run_side_by_side_as_many_as_asked(tmp_path, at_once):
    code = "import time; print(time.monotonic(), flush=True); time.sleep(0.5); print(time.monotonic())"
    seconds = run_all([[sys.executable, "-c", code]] * 3, at_once=at_once, logs=tmp_path)
    spans = [tuple(map(float, log.read_text().split())) for log in tmp_path.iterdir()]
    side_by_side = [sum(start <= one < end for start, end in spans) for one, _ in spans]
    assert (len(spans), max(side_by_side)) == (3, at_once)
    assert seconds > max(end for _, end in spans) - min(start for start, _ in spans)


@pytest.mark.process
def test_ctrl_c_leaves_no_process_behind(tmp_path):
    """The command starts another one, which does not end with it and heeds no polite word."""
    pids = tmp_path / "pids"
    grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = (
        "import os, pathlib, subprocess, sys\n"
        f"other = subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{other.pid}}\\n')\n"
        "other.wait()\n"
    )

    def interrupt() -> None:
        while not (pids.exists() and pids.read_text().endswith("\n")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_all([[sys.executable, "-c", child]], at_once=1, logs=tmp_path / "logs")
    for pid in map(int, pids.read_text().split()):
        assert is_gone(pid), f"process {pid} is still there"


def is_gone(pid: int) -> bool:
    """Wait for a killed process, which its new parent has to reap, to be gone."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and ") Z " in stat.read_text():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_a_round_measures_every_contender():
    seen = []
    rows = bench_harness(rounds=1, grid=Grid(norms=("l2",), num_seeds=1, epochs=1), fresh_cells=1, on_row=seen.append)
    assert [row.contender for row in seen if row.quantity == "grid"] == list(CONTENDERS)
    assert len(rows) == len(seen) == len(CONTENDERS) + 4
    assert (rows["seconds"] > 0).all()
    assert rows["num_cells"].eq(1).all()
    table = summarise(rows).set_index(["quantity", "contender"])
    assert (table["median"] > 0).all()
    assert table.loc[("epoch", "bare"), "median"] < table.loc[("cell", "bare"), "median"]
    assert (ratios(rows)["value"] > 0).all()


def test_a_benchmark_that_is_stopped_keeps_what_it_has_measured(cli, tmp_path, monkeypatch):
    row = Row(round=1, quantity="grid", contender="bare", num_cells=24, seconds=90.0)

    def is_stopped(*, on_row, **_):
        on_row(row)
        raise KeyboardInterrupt

    monkeypatch.setattr("ablations.bench.harness.bench_harness", is_stopped)
    assert cli("bench", "harness", "--csv", tmp_path / "rows.csv")[0] == 130
    assert pd.read_csv(tmp_path / "rows.csv").to_dict("records") == [vars(row)]
