"""Everything that can be asked for: cells, studies, experiment files, options; checked, with identities."""

from ablations.config.cell import CellConfig
from ablations.config.errors import Detached, Interrupted, RunStopped, UsageError
from ablations.config.study import Study

__all__ = ["CellConfig", "Detached", "Interrupted", "RunStopped", "Study", "UsageError"]
