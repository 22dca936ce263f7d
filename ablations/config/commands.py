"""The options of the commands in groups, each declared once for command line, experiment files and Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, model_validator

from ablations.config import parsing
from ablations.config.declare import Option, Options, Values, field_default, reads
from ablations.config.engine_flags import EngineFlags
from ablations.config.errors import UsageError
from ablations.config.field_values import read_fields, read_search, read_values
from ablations.config.grid_options import GridOptions, check_repeats, parse_zipped
from ablations.config.limits import MOST_POINTS
from ablations.config.options import InMemory, Retry
from ablations.config.search import EXAMPLE, Sampler, Search
from ablations.config.seeds import parse_confirmed, parse_seeds

DEFAULT_NORMS = ("xnorm", "l2", "single_l2")
DEFAULT_SEEDS = 8
"""Enough for six comparisons: 2 / 2^8 x 6 < 0.05."""
DEFAULT_TRIALS = 16

Rerun = Literal["stale", "all"]
"""Which finished cells are run again."""


def _read_own(value: Values, info: ValidationInfo) -> list[Any] | None:
    return None if value is None else read_values(str(info.field_name), value, may_repeat=True)


WHOLE = BeforeValidator(parsing.whole)

FieldValues = Annotated[Values, PlainValidator(_read_own)]
Folder = Annotated[str | Path, reads(parsing.folder)]


class FieldOptions(Options):
    """The fields of the cells; several values make an axis."""

    task: Annotated[FieldValues, Option(by_default=field_default("task"))] = None
    norm: Annotated[
        FieldValues, Option(by_default=f"{','.join(DEFAULT_NORMS)}; xnorm if another field is compared")
    ] = None
    data: Annotated[FieldValues, Option(by_default="digits, or shapes to detect")] = None
    classes: Annotated[
        FieldValues,
        Option("Classes of a folder: how many, drawn once, or which: a,b or @FILE with one on each line.", "all"),
    ] = None
    model: Annotated[FieldValues, Option(by_default="by image size")] = None
    lr: Annotated[FieldValues, Option(by_default="by recipe and image size")] = None
    epochs: Annotated[FieldValues, Option(by_default="by recipe and image size")] = None
    batch_size: Annotated[FieldValues, Option(by_default="by image size")] = None
    precision: Annotated[FieldValues, Option(by_default=field_default("precision"))] = None
    scale: Annotated[FieldValues, Option(by_default=field_default("scale"))] = None
    stack: Annotated[FieldValues, Option(by_default=field_default("stack"))] = None
    fields: Annotated[
        Mapping[str, Values] | Sequence[str] | None,
        reads(read_fields),
        Option(
            "Any other field of list fields; several values, with commas between them, make an axis.",
            flag="--set",
            metavar="FIELD=VALUE,...",
            repeatable=True,
        ),
    ] = ()

    @property
    def asked(self) -> dict[str, list[Any]]:
        """Values of each field that is given."""
        own = {name: getattr(self, name) for name in FieldOptions.model_fields if name != "fields"}
        read = {n: read_values(n, value, may_repeat=True) for n, value in own.items() if value is not None}
        return read | read_fields(self.fields)

    @model_validator(mode="after")
    def _gives_each_field_once(self) -> FieldOptions:
        for name in read_fields(self.fields):
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise UsageError(f"{name} is given twice")
        check_repeats(self.asked, parse_zipped(getattr(self, "zip", ())))
        return self


class SeedOptions(Options):
    """The replicates of each arm."""

    seeds: Annotated[
        Values,
        reads(parse_seeds),
        Option("Seeds: how many (8: 0 to 7), or which (0-3,7).", str(DEFAULT_SEEDS), metavar="SEEDS"),
    ] = None


class GridNameOptions(Options):
    """The recipe, the compared field and the name of a grid."""

    recipe: Annotated[str | None, Option("Default values of the training fields: one of list recipes.", "quick")] = None
    compare: Annotated[str | None, Option("Field whose values are the arms.", "norm", metavar="FIELD")] = None
    study: Annotated[str | None, Option("Name of the study.", "COMPARE-DATA, of a tuning COMPARE-DATA-tuned")] = None


class StudyOptions(GridNameOptions):
    """The question of a study."""

    ref: Annotated[str | None, Option("Reference arm.", "xnorm, or the first arm", metavar="ARM")] = None


class PluginOption(Options):
    """Normalisers from elsewhere."""

    plugins: Annotated[
        Sequence[str],
        reads(parsing.module_names),
        Option("Modules that register normalisers.", flag="--plugin", metavar="MODULE", repeatable=True),
    ] = ()


class SearchOptions(Options):
    """The trials of a tuning and the confirmation of its winners."""

    search: Annotated[
        str | Mapping[str, str] | Search | None,
        reads(read_search),
        Option(f"Searched fields with their ranges, a comma list, as {EXAMPLE}.", metavar="FIELD=LOW..HIGH[:log]"),
    ] = None
    trials: Annotated[
        int | None, WHOLE, Field(ge=1, le=MOST_POINTS), Option("Trials of each arm.", str(DEFAULT_TRIALS))
    ] = None
    confirm: Annotated[
        Values,
        reads(parse_confirmed),
        Option("Train the winner of each arm on fresh seeds: how many, or which; 0: none.", "none", metavar="SEEDS"),
    ] = None
    sampler: Annotated[
        Sampler | None, Option("sobol: the same points for every arm; tpe: after 8 trials each arm's own.", "sobol")
    ] = None
    sampler_seed: Annotated[int | None, WHOLE, Field(ge=0), Option("Seed of the points.", "0")] = None


class StorageOption(Options):
    """The database of a tuning."""

    storage: Annotated[
        str | None,
        Option("URL of a database for Optuna's studies.", "a journal file in the folder of the trials", metavar="URL"),
    ] = None


class OutOption(Options):
    """The place of the studies."""

    out: Annotated[Folder, Option("Folder that holds the studies.")] = "runs"


class ExperimentOption(Options):
    """A study or tuning that a file describes."""

    experiment: Annotated[
        str | Path | None,
        Option(
            "Experiment file (YAML), or the name of one of list experiments; options override it.", metavar="FILE|NAME"
        ),
    ] = None


class DataRootOption(Options):
    """The place of downloaded data."""

    data_root: Annotated[Folder, Option("Folder of torchvision's data sets.")] = "data"


class DataOptions(Options):
    """The reading of the data."""

    download: Annotated[bool, Option("Download missing data.")] = False
    in_memory: Annotated[
        InMemory, Option("Folders of images: decode them once (on), stream them (off), or decide by size (auto).")
    ] = "auto"


class DevicesOption(Options):
    """The devices to train on."""

    devices: Annotated[
        str | Sequence[str] | None,
        reads(parsing.devices),
        Option(
            "Devices to train on: auto, cpu, mps, or several GPUs: 0,1 or cuda:0,cuda:1.", "auto", metavar="DEVICE,..."
        ),
    ] = None


class InitOption(Options):
    """The weights that detectors start from."""

    init: Annotated[
        str | Path | Sequence[str | Path],
        reads(parsing.folders),
        Option(
            "Folders of trained classifiers' cells, a comma list: the detectors of each normaliser start from its "
            "weights.",
            metavar="PATH,...",
        ),
    ] = ()


class AgainOptions(Options):
    """The cells of earlier runs that are run again."""

    retry: Annotated[
        Retry, Option("Failed cells to run again: failed, oom, all (diverged ones too), none (and no second attempt).")
    ] = "failed"
    rerun: Annotated[
        Rerun | None, Option("Finished cells to run again: stale (from another numerics version), or all.")
    ] = None


class ShardOption(Options):
    """A part of a study's cells."""

    shard: Annotated[
        str | tuple[int, int],
        reads(parsing.shard),
        Option("Run part I of N of the cells, as in a job array.", "all cells", metavar="I/N"),
    ] = (1, 1)


class SmokeOption(Options):
    """A short run."""

    smoke: Annotated[bool, Option("Run 1 epoch, 256 images, 2 seeds, of a tuning 2 trials, in a study of its own.")] = (
        False
    )


class SharedOptions(
    StudyOptions,
    PluginOption,
    ExperimentOption,
    OutOption,
    DataRootOption,
    DataOptions,
    DevicesOption,
    EngineFlags,
    AgainOptions,
    InitOption,
):
    """Options of ``run`` and ``tune``."""


class RunOptions(FieldOptions, SeedOptions, GridOptions, SharedOptions, ShardOption, SmokeOption):
    """Options of ``run``."""


class TuneOptions(SearchOptions, StorageOption, FieldOptions, SharedOptions, SmokeOption):
    """Options of ``tune``."""


class BuildOptions(FieldOptions, DataRootOption, DataOptions):
    """Options of `ablations.build`."""

    norm: Annotated[FieldValues, Option()] = "xnorm"
    seed: Annotated[int, WHOLE, Field(ge=0), Option()] = 0
    recipe: Annotated[str, Option("Default values of the training fields: one of list recipes.")] = "quick"
    workers: Annotated[int, WHOLE, Field(ge=0), Option("Processes that decode streamed images.")] = 0
