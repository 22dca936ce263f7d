"""What must hold before anything of a study is written; each check raises `UsageError`, one line, where it does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ablations.config import CellConfig, UsageError
from ablations.config.nets import is_foreign, is_timm
from ablations.config.options import LOGGERS, EngineOptions
from ablations.config.packages import require_package
from ablations.config.request import Request
from ablations.config.types import COSINE, JOINT
from ablations.config.values import value_name
from ablations.data import DataInfo
from ablations.planning.estimate import num_steps
from ablations.store import Store
from ablations.tasks.net import make_net, start_of
from ablations.tasks.timm_net import try_timm_net
from ufo.norms import NORMS
from ufo.registry import unknown_name


def check_engine(device: torch.device, engine: EngineOptions) -> None:
    """Refuse what would be without effect, and loggers that are unknown or whose package is not installed."""
    if engine.jobs is not None and device.type != "cpu":
        raise UsageError(f"--jobs {engine.jobs} is for a CPU; on {device} give --jobs-per-gpu")
    if engine.jobs_per_gpu is not None and device.type != "cuda":
        raise UsageError(f"--jobs-per-gpu {engine.jobs_per_gpu} is for CUDA; on {device} give --jobs")
    for name in engine.loggers:
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)
        require_package(name, f"--log {name}")
    can_limit = device.type == "cuda" or (device.type == "cpu" and sys.platform == "linux")
    if engine.memory_per_cell_mib is not None and not can_limit:
        raise UsageError(f"--memory-per-cell cannot be enforced on {device} under {sys.platform}")


def check_precision(device: torch.device, asked: Mapping[str, list[Any]]) -> None:
    """Refuse float16 where nothing scales it."""
    if device.type == "cpu" and "16-mixed" in asked.get("precision", []):
        raise UsageError("--precision 16-mixed needs a GPU; on a CPU give bf16-mixed or 32-true")


def check_workers(workers: int | None, infos: Mapping[str, DataInfo]) -> None:
    """Refuse processes that would have nothing to decode."""
    if workers and not any(info.streamed for info in infos.values()):
        raise UsageError(
            f"--workers {workers}: no data set is streamed, so there is nothing to decode; "
            "leave it out, or give --in-memory off for a folder of images"
        )


def check_access(store: Store) -> None:
    """Refuse a study's folder that cannot be read or written."""
    try:
        (store.folder / "study.yaml").exists()
    except OSError as error:
        raise UsageError(f"{store.folder} cannot be read: {error.strerror}; give another --out") from error
    above = next(path for path in (store.folder, *store.folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "is no folder" if not above.is_dir() else "may not be written"
        raise UsageError(f"{store.folder} cannot be written: {above} {reason}; give another --out")


def check_claims(request: Request, asked: Mapping[str, list[Any]]) -> None:
    """Refuse a claim about a normaliser that is none; an arm that is not asked for leaves its claim undecided."""
    arms = [value_name(value) for value in asked.get(request.compare, [])]
    for arm in (arm for claim in request.claims for arm in claim.arms):
        if request.compare == "norm":
            NORMS[arm]
        elif arms and arm not in arms:
            raise UsageError(f"a claim is about {arm}, which is none of the arms of {request.compare}")


def check_sizes(cells: list[CellConfig], infos: Mapping[str, DataInfo]) -> None:
    """Refuse to train on more images than there are, or in batches of more than are trained on."""
    for cell in cells:
        info = infos[cell.images.data_fingerprint]
        if cell.images.train_limit is not None and cell.images.train_limit > info.num_train:
            raise UsageError(
                f"train_limit {cell.images.train_limit} exceeds the {info.num_train} training images of {info.name}"
            )
        if cell.optimisation.batch_size > (cell.images.train_limit or info.num_train):
            have = cell.images.train_limit or info.num_train
            raise UsageError(f"batch_size {cell.optimisation.batch_size} exceeds the {have} training images")


def check_schedules(cells: list[CellConfig], infos: Mapping[str, DataInfo]) -> None:
    """Refuse a warm-up that ends after the first fall of the learning rate, or after the training."""
    for cell in cells:
        optim = cell.optimisation
        total = num_steps(cell, infos[cell.images.data_fingerprint])
        falls = [] if optim.schedule == COSINE else [int(epoch) for epoch in optim.schedule.split(JOINT)]
        per_epoch = total // optim.epochs
        risen = optim.warmup_epochs * per_epoch + optim.warmup_steps
        first = min(total, falls[0] * per_epoch) if falls else total
        if (falls or optim.warmup_steps) and risen >= first:
            when = "falls" if first < total else "ends"
            raise UsageError(f"a warm-up of {risen} steps, and the learning rate {when} after {first}: shorten it")


def check_builds(todo: list[CellConfig], infos: Mapping[str, DataInfo], *, weights: Mapping[str, str]) -> list[str]:
    """Build each distinct net once, so that sizes that do not fit stop here and not in the night.

    Returns:
        What the nets start from, where that is not their seeds.
    """
    starts: dict[str, None] = {}
    distinct = {(cell.images, cell.net, cell.detection): cell for cell in todo}
    for cell in distinct.values():
        info = infos[cell.images.data_fingerprint]
        if is_timm(cell.net.model):
            require_package("timm", f"model {cell.net.model}")
        try:
            net = make_net(cell, info, weights=weights.get(cell.net.norm, ""))
            if cell.task == "detect":
                starts[start_of(net)] = None
            elif is_foreign(cell.net.model):
                try_timm_net(net, image_shape=info.image_shape, num_classes=len(info.classes))
        except (ValueError, RuntimeError) as error:  # the latter where torch cannot allocate it
            reason = str(error).splitlines()[0]
            norm = "" if is_foreign(cell.net.model) else f" with {cell.net.norm}"
            raise UsageError(f"{cell.net.model}{norm} on {info.name}: {reason}") from error
    return [start for start in starts if start]
