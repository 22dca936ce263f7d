"""Many cells on this machine, one after the other."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch

from ablations.data import DataInfo
from ablations.engine.cell import Result, run_cell
from ablations.provenance import describe, source_hash
from ablations.store import RECORD_FORMAT, CellRecord, Store, write_json
from ablations.study import CellConfig, Interrupted, Study

KEPT_OF_AN_ATTEMPT = ("outcome", "kind", "detail", "started", "seconds", "source_hash")
"""Fields of outcome.json that stay in the record of the attempt after it."""


def run_cells(
    todo: Iterable[CellConfig],
    *,
    study: Study,
    store: Store,
    infos: dict[str, DataInfo],
    device: torch.device,
    earlier: dict[str, CellRecord],
    on_done: Callable[[CellConfig, dict[str, Any]], None],
) -> None:
    """Run cells in their order and put each into the study's folder, whole.

    Args:
        todo: the cells.
        study: to which they belong.
        store: its folder.
        infos: data sets by fingerprint.
        device: to train on.
        earlier: records of cells that are run again, by id.
        on_done: called with a cell and the content of its outcome.json.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the cell on its way is dropped, the finished ones are kept.
    """
    provenance = {"source_hash": source_hash(study.plugins), "plugins": list(study.plugins), **describe()}
    with _stoppable():
        for config in todo:
            folder = store.partial(config)
            result = run_cell(config, infos[config.data_fingerprint], folder=folder, device=device)
            outcome = _record(config, result, provenance, earlier.get(config.id))
            write_json(folder / "config.json", json.loads(config.model_dump_json()))
            write_json(folder / "outcome.json", outcome)
            store.publish(folder, config, compare=study.compare)
            on_done(config, outcome)
            gc.collect()  # trainer and module hold each other, and between them the cell's tensors


def _record(
    config: CellConfig, result: Result, provenance: dict[str, Any], earlier: CellRecord | None
) -> dict[str, Any]:
    attempts = []
    if earlier is not None:
        last = {key: earlier.outcome[key] for key in KEPT_OF_AN_ATTEMPT}
        attempts = [*earlier.outcome["attempts"], last]
    return {
        "format": RECORD_FORMAT,
        "cell": config.id,
        "outcome": result.outcome,
        "kind": result.kind,
        "detail": result.detail,
        "traceback": result.traceback,
        "attempts": attempts,
        **result.fields,
        **provenance,
    }


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, where signals can be handled at all: in the main thread."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
