"""The study folder: records, which need neither torch nor pandas, and DataFrames of them in `frames`."""

from ablations.store.files import replacing, write_json, write_text
from ablations.store.leases import CHECKPOINT, RESUMED, Lease, LeaseLost
from ablations.store.lookup import compare_cells, find_cell, study_folders
from ablations.store.outcome import RECORD_FORMAT
from ablations.store.record import CellRecord, cell_name
from ablations.store.records import LOGS, TRIALS, Store
