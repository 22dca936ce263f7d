"""One cell's LightningModule and data, for training with Lightning's own Trainer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config import UsageError
from ablations.config.commands import BuildOptions
from ablations.config.declare import keywords_of
from ablations.config.request import Request
from ablations.planning.plan import make_plan

if TYPE_CHECKING:
    from ablations.data.modules import CellDataModule
    from ablations.training.module import CellModule


@keywords_of(BuildOptions)
def build(options: BuildOptions) -> tuple[CellModule, CellDataModule]:
    """Build the LightningModule and LightningDataModule of one cell, as ``python -m ablations run`` trains them.

    ``Trainer(max_epochs=E).fit(module, data)`` gives the numbers of the cell, bit for bit on a CPU with the same
    number of threads; `ablations.data.modules` describes training in several processes. Precision and device are
    the trainer's. Each field has one value.

    Raises:
        UnknownNameError: an unknown name; the message has the nearest and all valid ones.
        UsageError: any other wrong argument, in one line.
    """
    from ablations.data.modules import make_data
    from ablations.tasks.make import make_module

    with tempfile.TemporaryDirectory() as nowhere:  # the cell belongs to no study
        plan = make_plan(
            Request(
                asked={"seed": [options.seed], **options.asked},
                recipe=options.recipe,
                out=Path(nowhere),
                data_root=Path(options.data_root),
                download=options.download,
                in_memory=options.in_memory,
            )
        )
    if len(plan.cells) != 1:
        raise UsageError(f"build makes one cell, not {len(plan.cells)}")
    (cell,) = plan.cells
    info = plan.infos[cell.images.data_fingerprint]
    return make_module(cell, info), make_data(cell, info, workers=options.workers)
