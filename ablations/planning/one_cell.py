"""A cell's LightningModule and its data from Python, for whoever trains with Lightning's own Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config import UsageError
from ablations.config.request import Request
from ablations.config.values import check_values
from ablations.planning.plan import make_plan

if TYPE_CHECKING:
    from ablations.config.options import InMemory
    from ablations.data.modules import CellDataModule
    from ablations.training.module import CellModule


def build(
    *,
    norm: str = "xnorm",
    data: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    task: str | None = None,
    model: str | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    fields: Mapping[str, Any] | None = None,
    recipe: str = "quick",
    data_root: str | Path = "data",
    download: bool = False,
    in_memory: InMemory = "auto",
    workers: int = 0,
) -> tuple[CellModule, CellDataModule]:
    """Make a cell's LightningModule and LightningDataModule, as ``python -m ablations run`` trains them.

    ``Trainer(max_epochs=E).fit(module, data)`` comes to the numbers of the cell, bit for bit on the same device with
    as many threads; `ablations.data.modules` says what several processes share. Precision and device are the trainer's.

    Args:
        norm: as ``--norm``, one of them; so are all that follow.
        data: as ``--data``.
        epochs: for which the learning rate is laid out.
        seed: of weights, order and augmentation.
        task: as ``--task``.
        model: as ``--model``.
        lr: as ``--lr``.
        batch_size: as ``--batch-size``: of all processes together.
        fields: any other field of a cell, as ``--set``.
        recipe: as ``--recipe``.
        data_root: as ``--data-root``.
        download: as ``--download``.
        in_memory: as ``--in-memory``.
        workers: processes that decode images that are not in memory.

    Raises:
        UnknownNameError: a name that there is none of, with the nearest and all valid ones.
        UsageError: anything else that does not fit, in one line.
    """
    from ablations.data.modules import make_data
    from ablations.tasks.make import make_module

    given: dict[str, Any] = {"task": task, "norm": norm, "data": data, "epochs": epochs, "seed": seed, "model": model}
    given |= {"lr": lr, "batch_size": batch_size, **(fields or {})}
    asked = {field: check_values(field, [value]) for field, value in given.items() if value is not None}
    with tempfile.TemporaryDirectory() as nowhere:  # what is built belongs to no study
        plan = make_plan(
            Request(
                asked=asked,
                recipe=recipe,
                out=Path(nowhere),
                data_root=Path(data_root),
                download=download,
                in_memory=in_memory,
            )
        )
    if len(plan.cells) != 1:
        raise UsageError(f"build makes one cell, and this is {len(plan.cells)}")
    (cell,) = plan.cells
    info = plan.infos[cell.images.data_fingerprint]
    return make_module(cell, info), make_data(cell, info, workers=workers)
