"""Data sets: found, decoded once into a cache, and served in batches that are augmented on the device."""

from ablations.data.batches import EVAL_BATCH, Batch, EvalBatches, Scale, Split, TrainBatches
from ablations.data.cache import DataInfo, cached, load_splits, prepare, split_hash
from ablations.data.find import DATA_SETS, find_source
from ablations.data.sources import Source

__all__ = [
    "DATA_SETS",
    "EVAL_BATCH",
    "Batch",
    "DataInfo",
    "EvalBatches",
    "Scale",
    "Source",
    "Split",
    "TrainBatches",
    "cached",
    "find_source",
    "load_splits",
    "prepare",
    "split_hash",
]
