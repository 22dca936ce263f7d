"""Many cells on this machine, each in a worker process, as many side by side as there are jobs."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from ablations.data import DataInfo
from ablations.provenance import describe, import_plugin, source_hashes
from ablations.store import RECORD_FORMAT, CellRecord, Store, write_json
from ablations.study import CellConfig, Interrupted, Study

if TYPE_CHECKING:
    from ablations.engine.cell import Result

KEPT_OF_AN_ATTEMPT = ("outcome", "kind", "detail", "test_accuracy_pct", "started", "seconds", "source_hash")
"""Fields of outcome.json that stay in the record of the attempt after it."""


def run_cells(
    todo: list[CellConfig],
    *,
    study: Study,
    store: Store,
    infos: dict[str, DataInfo],
    device: torch.device,
    jobs: int,
    earlier: dict[str, CellRecord],
    on_done: Callable[[CellConfig, dict[str, Any]], None],
) -> None:
    """Run cells and put each into the study's folder, whole.

    The workers are forked from a server that has torch and Lightning loaded.

    Args:
        todo: the cells, in the order in which they are started.
        study: to which they belong.
        store: its folder.
        infos: data sets by fingerprint.
        device: to train on.
        jobs: cells side by side.
        earlier: records of cells that are run again, by id.
        on_done: called with a cell and the content of its outcome.json.

    Raises:
        Interrupted: SIGINT or SIGTERM came, or a worker was killed; the cells on their way are dropped, the finished
            ones are kept.
    """
    provenance = {"plugins": list(study.plugins), **describe()}
    sources = source_hashes(config.norm for config in todo)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ablations.engine.cell"])
    with _no_interrupt():  # the server must outlive a Ctrl-C, which reaches it too
        forkserver.ensure_running()
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(study.plugins,))
    started: dict[Future[Result], tuple[CellConfig, Path]] = {}
    with _stoppable():
        try:
            _await_server(context)
            for config in todo:
                folder = store.partial(config).resolve()
                future = pool.submit(_run_in_worker, config, infos[config.data_fingerprint], folder, device)
                started[future] = (config, folder)
            for future in as_completed(started):
                config, folder = started[future]
                origin = {"source_hash": sources[config.norm], **provenance}
                before = earlier.get(config.id)
                outcome = _record(config, future.result(), origin, before)
                if outcome["outcome"] == "failed" and before is not None and before.has_result:
                    store.add_attempt(before, _attempt(outcome))  # a failure takes no result's place
                else:
                    write_json(folder / "config.json", json.loads(config.model_dump_json()))
                    write_json(folder / "outcome.json", outcome)
                    store.publish(folder, config, compare=study.compare)
                on_done(config, outcome)
        except BrokenProcessPool:
            raise Interrupted("a worker process was killed, by the system for want of memory perhaps") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
            for _, folder in started.values():
                shutil.rmtree(folder, ignore_errors=True)


def _await_server(context: ForkServerContext) -> None:
    """Wait until the server has loaded all: a worker asked for before, and given up, would end in a traceback."""
    first = context.Process(target=_nothing)
    first.start()
    first.join()


def _nothing() -> None:
    pass


def _start_worker(plugins: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides
    for name in plugins:
        import_plugin(name)


def _run_in_worker(config: CellConfig, info: DataInfo, folder: Path, device: torch.device) -> Result:
    from ablations.engine.cell import run_cell

    result = run_cell(config, info, folder=folder, device=device)
    gc.collect()  # trainer and module hold each other, and between them the cell's tensors
    return result


def _attempt(outcome: dict[str, Any]) -> dict[str, Any]:
    return {key: outcome[key] for key in KEPT_OF_AN_ATTEMPT}


def _record(
    config: CellConfig, result: Result, provenance: dict[str, Any], earlier: CellRecord | None
) -> dict[str, Any]:
    attempts = []
    if earlier is not None:
        attempts = [*earlier.outcome["attempts"], _attempt(earlier.outcome)]
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
def _no_interrupt() -> Iterator[None]:
    """Ignore SIGINT, as a process that is started meanwhile will for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
