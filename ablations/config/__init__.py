"""What a study and a cell are: validation, axes to cells, identity."""

from ablations.config.cell import CellConfig
from ablations.config.errors import Interrupted, RunStopped, UsageError
from ablations.config.study import Study

__all__ = ["CellConfig", "Interrupted", "RunStopped", "Study", "UsageError"]
