"""The study folder. Reading its records needs neither torch nor pandas; `frames` has them as DataFrames."""

from ablations.store.records import RECORD_FORMAT, CellRecord, Store, find_cell, write_json, write_text

__all__ = ["RECORD_FORMAT", "CellRecord", "Store", "find_cell", "write_json", "write_text"]
