"""Data sets in a cache or streamed, and batches that are augmented on the device."""

from ablations.data.batches import EVAL_BATCH, Batch, EvalBatches, Scale, Split, TrainBatches, eval_batch
from ablations.data.cache import prepare
from ablations.data.epoch import EpochBatches, Rank
from ablations.data.find import DATA_SETS, OWN_SIZE, find_objects, find_source
from ablations.data.info import DataInfo
from ablations.data.load import time_images
from ablations.data.location import cached
from ablations.data.objects.source import prepare_objects
from ablations.data.order import num_batches
from ablations.data.splits import load_splits
