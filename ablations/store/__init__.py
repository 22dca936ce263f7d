"""The study folder. Reading its records needs neither torch nor pandas; `frames` has them as DataFrames."""

from ablations.store.files import replacing, write_json, write_text
from ablations.store.leases import CHECKPOINT, RESUMED, Lease, LeaseLost
from ablations.store.outcome import RECORD_FORMAT
from ablations.store.records import (
    CellRecord,
    Store,
    cell_name,
    compare_cells,
    find_cell,
)

__all__ = [
    "CHECKPOINT",
    "RECORD_FORMAT",
    "RESUMED",
    "CellRecord",
    "Lease",
    "LeaseLost",
    "Store",
    "cell_name",
    "compare_cells",
    "find_cell",
    "replacing",
    "write_json",
    "write_text",
]
