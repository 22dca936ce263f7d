"""Checks that precede writing anything of a study; each raises a `UsageError` of one line."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ablations.config import CellConfig, UsageError
from ablations.config.cell import FIELDS
from ablations.config.nets import is_foreign, is_timm
from ablations.config.options import LOGGERS, EngineOptions
from ablations.config.packages import require_package
from ablations.config.request import Request
from ablations.config.types import COSINE, JOINT
from ablations.config.values import plural, value_name
from ablations.data import DataInfo
from ablations.data.objects.splits import split_objects
from ablations.data.splits import check_limits
from ablations.planning.estimate import num_steps
from ablations.store import Store
from ablations.store.reading import exists
from ablations.tasks.net import make_net, start_of
from ablations.tasks.timm_net import try_timm_net
from ufo.norms import NORMS
from ufo.registry import unknown_name


def check_engine(devices: tuple[torch.device, ...], engine: EngineOptions) -> None:
    """Reject engine options without effect on the devices, and loggers that are unknown or not installed."""
    device = devices[0]
    if engine.jobs is not None and device.type != "cpu" and engine.name == "local":
        raise UsageError(f"--jobs {engine.jobs} is for a CPU; on {device} give --jobs-per-gpu")
    if engine.jobs_per_gpu is not None and device.type != "cuda":
        raise UsageError(f"--jobs-per-gpu {engine.jobs_per_gpu} is for CUDA; on {device} give --jobs")
    check_shared_cells(devices, engine)
    for name, package in {"ray": "ray", "slurm": "submitit"}.items():
        if engine.name == name:
            require_package(package, f"--engine {name}")
    if engine.name == "slurm" and shutil.which("sbatch") is None:
        raise UsageError("--engine slurm: there is no sbatch on this machine; run it on a login node of the cluster")
    for name in engine.loggers:
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)
        require_package(name, f"--log {name}")
    can_limit = device.type == "cuda" or (device.type == "cpu" and sys.platform == "linux")
    if engine.memory_per_cell_mib is not None and not can_limit:
        raise UsageError(f"--memory-per-cell cannot be enforced on {device} under {sys.platform}; leave it out")


def check_shared_cells(devices: tuple[torch.device, ...], engine: EngineOptions) -> None:
    """Reject several GPUs for each cell on a CPU, of a number that cannot be divided so, or beside what excludes it."""
    number = engine.gpus_per_cell
    if number == 1:
        return
    given = f"--gpus-per-cell {number}"
    if devices[0].type != "cuda":
        raise UsageError(f"{given} needs CUDA GPUs; on {devices[0]} leave it out")
    if engine.name == "local" and len(devices) % number:
        raise UsageError(f"{given}: {plural(len(devices), 'GPU')} cannot be divided so; give a multiple of {number}")
    per_task = engine.slurm.gpus_per_task
    if per_task is not None and per_task % number:
        raise UsageError(f"{given} and --slurm-gpus-per-task {per_task}: a task needs a multiple of {number}")
    if engine.jobs_per_gpu not in (None, 1):
        raise UsageError(f"{given} and --jobs-per-gpu {engine.jobs_per_gpu}: a GPU that shares a cell has no other one")
    if engine.trainer != "lean":
        raise UsageError(f"{given} needs the lean trainer; leave out --trainer {engine.trainer}")


NEED_CUDA: tuple[tuple[str, Any, str], ...] = (
    ("precision", "tf32", "give 32-true"),
    ("deterministic", True, "leave it out: a CPU is deterministic anyway"),
    ("cudnn_benchmark", True, "leave it out"),
    ("cuda_graph", True, "leave it out"),
)
"""Fields with a value that needs a CUDA GPU, and what to do on another device."""


def check_device_fields(device: torch.device, asked: Mapping[str, list[Any]]) -> None:
    """Reject values that the device does not have: float16 on a CPU, where losses are not scaled, and CUDA's."""
    if device.type == "cpu" and "16-mixed" in asked.get("precision", []):
        raise UsageError("--precision 16-mixed needs a GPU; on a CPU give bf16-mixed or 32-true")
    for name, value, fix in NEED_CUDA if device.type != "cuda" else ():
        if value in asked.get(name, []):
            raise UsageError(f"{name}={value_name(value)} needs a CUDA GPU; on {device} {fix}")


CONFLICTS: tuple[tuple[str, Callable[[CellConfig, EngineOptions], bool], str], ...] = (
    ("cuda_graph", lambda _, engine: engine.trainer != "lean", "needs the lean trainer; leave out --trainer lightning"),
    ("stack", lambda _, engine: engine.trainer != "lean", "needs the lean trainer; leave out --trainer lightning"),
    (
        "cuda_graph",
        lambda cell, _: cell.images.streamed,
        "needs images in memory; give --in-memory on, or leave it out",
    ),
    (
        "cuda_graph",
        lambda cell, _: is_foreign(cell.net.model) and cell.net.drop_path > 0,
        "captures no random draws of a net of timm; give drop_path=0, or leave it out",
    ),
    ("stack", lambda _, engine: "wandb" in engine.loggers, "has several runs in a process; leave out --log wandb"),
    ("stack", lambda cell, _: cell.run.precision == "16-mixed", "does not apply to float16; give bf16-mixed"),
    (
        "deterministic",
        lambda cell, _: cell.task == "detect" and not is_foreign(cell.net.model) and cell.net.pos_embed == "learned",
        "has no gradient for the resized learned positions of a detector; give pos_embed=sincos",
    ),
    ("deterministic", lambda cell, _: cell.run.cudnn_benchmark, "excludes cudnn_benchmark=on; leave one of them out"),
    (
        "cuda_graph",
        lambda cell, _: cell.run.deterministic and cell.run.stack > 1,
        "captures no deterministic stack, whose loss copies from the host; leave one of the three out",
    ),
    ("stack", lambda cell, _: cell.run.compile, "does not apply to compiled steps; leave it or compile out"),
    *(
        (name, lambda _, engine: engine.gpus_per_cell > 1, "is for a cell on one GPU; leave out --gpus-per-cell")
        for name in ("stack", "cuda_graph", "compile")
    ),
    *(
        (name, lambda _, engine: bool(engine.probe_steps), "has no single steps to record; leave out --probe-steps")
        for name in ("stack", "cuda_graph", "compile")
    ),
)
"""Fields that cannot be on in some cells: the field, whether a cell is one of those, and why with the fix."""


def check_conflicts(cells: list[CellConfig], engine: EngineOptions) -> None:
    """Reject captured steps, stacked seeds and deterministic operations where the training cannot have them."""
    for name, conflicts, reason in CONFLICTS:
        for cell in cells:
            if cell[name] != FIELDS[name].default and conflicts(cell, engine):
                raise UsageError(f"{name}={value_name(cell[name])} {reason}")


def check_workers(workers: int | None, infos: Mapping[str, DataInfo]) -> None:
    """Reject data loader workers if no data set is streamed."""
    if workers and not any(info.streamed for info in infos.values()):
        raise UsageError(
            f"--workers {workers}: no data set is streamed, so there is nothing to decode; "
            "leave it out, or give --in-memory off for a folder of images"
        )


def check_access(store: Store, engine: EngineOptions) -> None:
    """Reject a study's folder that cannot be read or written, or whose cells cannot be listed."""
    try:
        exists(store.folder / "study.yaml")
    except UsageError as error:
        raise UsageError(f"{error}; give another --out") from None
    above = store.nearest_folder
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "is not a folder" if not above.is_dir() else "is not writable"
        raise UsageError(f"{store.folder} cannot be written: {above} {reason}; give another --out")
    store.cell_folders()
    if engine.loggers:
        store.check_logs()


def check_claims(request: Request, asked: Mapping[str, list[Any]]) -> None:
    """Reject claims about unknown arms; a claim about a normaliser that is not an arm stays undecided."""
    arms = [value_name(value) for value in asked.get(request.compare, [])]
    for arm in (arm for claim in request.claims for arm in claim.arms):
        if request.compare == "norm":
            NORMS[arm]
        elif arms and arm not in arms:
            raise UsageError(f"a claim is about {arm}, which is not one of the arms: {', '.join(arms)}")


def check_cells(cells: list[CellConfig], infos: Mapping[str, DataInfo], engine: EngineOptions) -> None:
    """Check the fields of all cells against their data sets, against each other, and against the engine's options.

    Raises:
        UsageError: a value that a data set, another field or an option forbids.
    """
    check_workers(engine.workers, infos)
    check_conflicts(cells, engine)
    check_sizes(cells, infos)
    check_shares(cells, engine.gpus_per_cell)
    check_evaluated(cells, infos)
    check_schedules(cells, infos)


def check_sizes(cells: list[CellConfig], infos: Mapping[str, DataInfo]) -> None:
    """Reject a number of training or evaluated images, or a batch size, that exceeds the images of the data set."""
    for cell in cells:
        info = infos[cell.images.data_fingerprint]
        limit, batch_size = cell.images.train_limit, cell.optimisation.batch_size
        check_limits(info, train_limit=limit, eval_limit=cell.images.eval_limit)
        if batch_size > (limit or info.num_train):
            raise UsageError(f"batch_size={batch_size}: must be at most {limit or info.num_train}, the training images")


def check_shares(cells: list[CellConfig], gpus_per_cell: int) -> None:
    """Reject a batch size that the GPUs of a cell cannot share."""
    for cell in cells if gpus_per_cell > 1 else ():
        parts, size = gpus_per_cell if cell.task == "detect" else 2 * gpus_per_cell, cell.optimisation.batch_size
        if size % parts:
            raise UsageError(f"--gpus-per-cell {gpus_per_cell}: batch_size={size} must be a multiple of {parts}")


def check_evaluated(cells: list[CellConfig], infos: Mapping[str, DataInfo]) -> None:
    """Reject a number of evaluated images whose draw has no objects, which a detector's score needs."""
    limited = {
        (cell.images.data_fingerprint, cell.images.eval_limit, cell.run.scored_on): None
        for cell in cells
        if cell.task == "detect" and cell.images.eval_limit is not None
    }
    for fingerprint, limit, scored_on in limited:
        split_objects(infos[fingerprint], train_limit=None, eval_limit=limit, with_test=scored_on == "test")


def check_schedules(cells: list[CellConfig], infos: Mapping[str, DataInfo]) -> None:
    """Reject a warm-up that ends after the first decay of the learning rate, or after the training."""
    for cell in cells:
        optim = cell.optimisation
        total = num_steps(cell, infos[cell.images.data_fingerprint])
        decays = [] if optim.schedule == COSINE else [int(epoch) for epoch in optim.schedule.split(JOINT)]
        per_epoch = total // optim.epochs
        warmup = optim.warmup_epochs * per_epoch + optim.warmup_steps
        first = min(total, decays[0] * per_epoch) if decays else total
        if (decays or optim.warmup_steps) and warmup >= first:
            what = "the learning rate decays" if first < total else "training ends"
            raise UsageError(
                f"the warm-up takes {plural(warmup, 'step')}, but {what} after {first}: shorten the warm-up"
            )


def check_builds(todo: list[CellConfig], infos: Mapping[str, DataInfo], *, weights: Mapping[str, str]) -> list[str]:
    """Build each distinct net once, so that invalid sizes are found before the first cell runs.

    Returns:
        Initial weights of nets that do not start from their seeds, one line each.
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
        except (ValueError, RuntimeError) as error:  # RuntimeError: torch cannot allocate the net
            reason = str(error).splitlines()[0]
            norm = "" if is_foreign(cell.net.model) else f" with {cell.net.norm}"
            raise UsageError(f"{cell.net.model}{norm} on {info.name}: {reason}") from error
    return [start for start in starts if start]
