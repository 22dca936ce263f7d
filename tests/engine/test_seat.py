"""A seat runs jobs from bytes to bytes, with nothing of the runner's machine but what it is sent."""

from __future__ import annotations

import importlib
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.config.options import CellOptions
from ablations.config.request import Request
from ablations.data.location import cache_root, data_folder
from ablations.engine import seat as seats
from ablations.engine.seat import News, Order, Seat
from ablations.engine.server import await_server
from ablations.engine.shipping import FilesAt, write_files
from ablations.engine.worker import Task
from ablations.planning.plan import make_plan
from ablations.store.provenance import plugin_files, plugin_hash

pytestmark = pytest.mark.process


@pytest.fixture
def seat(tmp_path, monkeypatch):
    """A seat with folders and a module search path of its own."""
    await_server(threading.Event())  # whose socket is in the folder of temporary files, and needs a short path
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "node").mkdir()
    made = Seat(is_cuda=False)
    yield made
    made.close()
    assert list((tmp_path / "node").glob("ablations-seat-*")) == []


def order(out: Path, norm: str = "xnorm", *, plugins: tuple[str, ...] = (), **asked: Any) -> Order:
    """Return an order for a cell on digits."""
    values = {"norm": [norm], "epochs": [1], "seed": [0], **{name: [value] for name, value in asked.items()}}
    plan = make_plan(Request(asked=values, out=out, devices=("cpu",), plugins=plugins, ref=norm))
    (cell,), (info,) = plan.cells, plan.infos.values()
    task = Task(
        config=cell,
        info=info,
        folder=Path("/nowhere"),
        device=torch.device("cuda", 5),
        options=CellOptions(log_folder="/nowhere/study/logs/cell"),
        numerics="",
        plugins=plugins,
        plugin_hash=plugin_hash(norm),
    )
    entry = data_folder(info.name, info.fingerprint, streamed=False).name
    return Order(tasks=(task,), files=({},), weights=None, plugins=plugin_files(plugins), entry=entry)


def end(seat: Seat, news: News) -> tuple[dict[str, bytes], Any]:
    """Let a job run to its end; return its files and results."""
    files: dict[str, bytes] = {}
    while True:
        files |= news.files[0] if news.files else {}
        if news.results is not None:
            return files, news.results
        news = seat.advance()


def test_a_job_comes_back_as_bytes(seat, tmp_path):
    files, (result,) = end(seat, seat.advance(order(tmp_path)))
    assert result.outcome == "ok"
    assert {"metrics.csv", "correct.npy", "probes.csv", "log.txt"} <= set(files)
    assert result.fields["device"] == "cpu"


def test_a_checkpoint_is_sent_back_and_goes_on_in_another_seat(seat, tmp_path, monkeypatch):
    monkeypatch.setattr(seats, "SHIP_S", 0.1)  # long before the cell ends
    asked = order(tmp_path, epochs=12)  # shorter than the minute between two checkpoints
    news = seat.advance(asked)
    while not (news.files and "checkpoint.ckpt" in news.files[0]):
        seat.save()
        news = seat.advance()
    seat.cancel(dump=True)
    files, results = end(seat, seat.advance())
    assert results == ("killed", "cancelled by the runner")
    assert b"most recent call first" in files["log.txt"]
    checkpoint = {"checkpoint.ckpt": (news.files[0] | files)["checkpoint.ckpt"]}
    _, (result,) = end(seat, seat.advance(replace(asked, files=(checkpoint,))))
    assert result.outcome == "ok"
    assert len(result.fields["resumed_after_epochs"]) == 1


def test_data_that_the_node_lacks_are_asked_for_and_received_once(seat, tmp_path, monkeypatch):
    asked = order(tmp_path)
    data = FilesAt(cache_root() / asked.entry).changed()
    monkeypatch.setenv("ABLATIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seats, "POLL_S", 0.5)
    assert seat.advance(asked).lacks
    assert seat.advance().lacks
    sent = threading.Thread(target=seat.receive, args=(asked.entry, data))
    sent.start()
    _, (result,) = end(seat, seat.advance())
    sent.join()
    assert result.outcome == "ok"
    assert FilesAt(tmp_path / "cache" / asked.entry).changed() == data


@pytest.mark.usefixtures("arms")
def test_a_plug_in_travels_with_the_job(seat, tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "own_arm.py").write_text(
        "from ufo.norms import AttentionNorm, register\n\n\n"
        '@register(name="own", label="own", formula="-", source="test", invariances=set())\n'
        "class Own(AttentionNorm):\n    def forward(self, q, k, v):\n        return q * v.mean(dim=2, keepdim=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "ours")
    asked = order(tmp_path, "own", plugins=("own_arm",))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path / "ours")])
    (tmp_path / "ours" / "own_arm.py").unlink()
    importlib.invalidate_caches()
    _, (result,) = end(seat, seat.advance(asked))
    assert result.outcome == "ok", result.detail


def test_a_streamed_folder_that_the_node_lacks_is_named(seat, tmp_path):
    asked = order(tmp_path)
    info = replace(asked.tasks[0].info, streamed=True, root="/no/such/images")
    with pytest.raises(FileNotFoundError, match="read from /no/such/images, which the node does not have"):
        seat.advance(replace(asked, tasks=(replace(asked.tasks[0], info=info),)))


def test_folders_of_seats_that_died_are_removed(seat, tmp_path):
    (tmp_path / "node" / "ablations-seat-999999999-x").mkdir()
    other = Seat(is_cuda=False)
    assert not (tmp_path / "node" / "ablations-seat-999999999-x").exists()
    other.close()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", ""])
def test_no_file_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="leads out of the folder"):
        write_files({name: b"x"}, tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
