"""What a study and a cell are: validation, axes to cells, identity."""

from ablations.study.cell import CellConfig
from ablations.study.errors import Interrupted, RunStopped, UsageError
from ablations.study.grid import Study

__all__ = ["CellConfig", "Interrupted", "RunStopped", "Study", "UsageError"]
