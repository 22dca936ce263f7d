"""Options that several commands share, and how those of the engine are read."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ablations.config.options import EngineOptions

UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
UNITS_MIB = {"": 1.0, "MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}


class Retry(StrEnum):
    """Which cells of earlier runs are run again beside the missing ones."""

    FAILED = "failed"
    OOM = "oom"
    ALL = "all"
    NONE = "none"


class Rerun(StrEnum):
    """Which finished cells are run again."""

    STALE = "stale"
    ALL = "all"


class MemoryUse(StrEnum):
    """Whether folders of images are decoded once or streamed."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class TrainerKind(StrEnum):
    """What drives a cell's training."""

    LEAN = "lean"
    LIGHTNING = "lightning"


TaskName = Annotated[str | None, typer.Option(help="classify, or detect: boxes and masks. [default: classify]")]
Norm = Annotated[
    str | None,
    typer.Option(help="Normalisers, a comma list. [default: xnorm,l2,single_l2; xnorm where --compare is another]"),
]
Data = Annotated[
    str | None, typer.Option(help="As list data has them, with DIR for a folder. [default: digits; of detect, shapes]")
]
Classes = Annotated[
    str | None, typer.Option(help="Of a folder, how many classes (drawn once), or which: a,b or @FILE.")
]
Model = Annotated[str | None, typer.Option(help="Models. [default: by the size of the images]")]
Recipe = Annotated[
    str | None, typer.Option(help="Values of fields that are not named, as list recipes has them. [default: quick]")
]
Lr = Annotated[str | None, typer.Option(help="Peak learning rates. [default: by recipe and size of the images]")]
Epochs = Annotated[str | None, typer.Option(help="Epochs. [default: by recipe and size of the images]")]
BatchSize = Annotated[str | None, typer.Option(help="Images of a batch. [default: by the size of the images]")]
Scale = Annotated[
    str | None,
    typer.Option(help="own, or matched: every attention output starts at the size of xnorm's. [default: own]"),
]
Precision = Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed. [default: 32-true]")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any other field: FIELD=VALUE[,VALUE...]; repeatable.")
]
Compare = Annotated[str | None, typer.Option(help="Field whose values are the arms. [default: norm]")]
Ref = Annotated[str | None, typer.Option(help="Arm to compare with. [default: xnorm, or the first]")]
Experiment = Annotated[
    str | None, typer.Option(help="One of list experiments, or a YAML file with question and fields; flags win.")
]
Init = Annotated[
    str | None,
    typer.Option(help="Cells of classifiers, a comma list of folders: each norm's detectors start from its weights."),
]
StudyName = Annotated[str | None, typer.Option(help="Name of the study. [default: COMPARE-DATA]")]
Download = Annotated[bool, typer.Option("--download", help="Fetch data that is missing.")]
RetryWhich = Annotated[
    Retry, typer.Option(help="Failed cells to run again: failed, oom, all (and diverged), none (nor a second try).")
]
RerunWhich = Annotated[
    Rerun | None, typer.Option(help="Run finished cells again: stale (from another version of the numerics), or all.")
]
Smoke = Annotated[bool, typer.Option("--smoke", help="1 epoch, 256 images, 2 seeds, a study of its own.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and end; data are decoded and a few steps timed.")
]
StudyData = Annotated[
    str | None, typer.Option(help="Its data sets as for run: a study does not hold the place of a folder.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder that holds the studies.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, progress on standard error.")]
Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="Module that registers normalisers; repeatable.")]
DataRoot = Annotated[Path, typer.Option(help="Folder of torchvision's data.")]
Device = Annotated[
    str | None, typer.Option(help="auto (the first GPU, else the CPU), cpu, cuda, cuda:N or mps. [default: auto]")
]
Devices = Annotated[str | None, typer.Option(help="Several GPUs: 0,1.")]
Jobs = Annotated[str, typer.Option(help="Cells side by side on a CPU; auto: one a core, 8 at most.")]
JobsPerGpu = Annotated[
    str, typer.Option(help="Cells side by side on each GPU; auto: as many as fit, at most one a core and 8.")
]
Timeout = Annotated[str | None, typer.Option(help="End a cell after this time: 90s, 30m, 2h.")]
MemoryPerCell = Annotated[
    str | None, typer.Option(help="Most memory a cell may take: 800MiB, 4GiB. [default: what is free, shared out]")
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Start no more cells once one has failed.")]
MaxFailures = Annotated[int | None, typer.Option(min=1, help="Start no more cells once so many have failed.")]
CheckpointEvery = Annotated[
    str, typer.Option(help="Epochs between checkpoints, or time, within an epoch too: 10m; auto; 0: none.")
]
TrainerName = Annotated[
    TrainerKind,
    typer.Option("--trainer", help="What drives a cell: our lean loop, or Lightning's Trainer; same numbers."),
]
SaveWeights = Annotated[str, typer.Option(help="none, or last: weights.safetensors in each cell's folder.")]
InMemory = Annotated[
    MemoryUse, typer.Option(help="Folders of images: decoded once (on), streamed (off), or by their size (auto).")
]
Workers = Annotated[
    str, typer.Option(help="Processes of each cell that decode streamed images; auto: the cores that are left.")
]
Log = Annotated[str | None, typer.Option(help="Lightning's loggers to attach: tensorboard,wandb.")]


def parse_init(init: str | None) -> tuple[Path, ...]:
    """Read the folders of ``--init``.

    Raises:
        UsageError: there is no name between two commas.
    """
    if init is None:
        return ()
    from ablations.config import UsageError

    folders = [folder.strip() for folder in init.split(",")]
    if not all(folders):
        raise UsageError(f"--init '{init}': give folders of cells, with commas between them")
    return tuple(map(Path, folders))


def parse_engine(
    *,
    jobs: str,
    jobs_per_gpu: str,
    timeout: str | None,
    memory_per_cell: str | None,
    retry: Retry,
    fail_fast: bool,
    max_failures: int | None,
    checkpoint_every: str,
    trainer: TrainerKind,
    save_weights: str,
    log: str | None,
    workers: str,
) -> EngineOptions:
    """Read the options of the engine.

    Raises:
        UsageError: a value that an option cannot have.
    """
    from ablations.config import UsageError
    from ablations.config.options import EngineOptions

    if fail_fast and max_failures is not None:
        raise UsageError("give --fail-fast or --max-failures, not both")
    if save_weights not in ("none", "last"):
        raise UsageError(f"--save-weights {save_weights}: give none or last")
    return EngineOptions(
        jobs=_count("--jobs", jobs),
        jobs_per_gpu=_count("--jobs-per-gpu", jobs_per_gpu),
        timeout_s=_quantity("--timeout", timeout, UNITS_S, "90s, 30m or 2h"),
        memory_per_cell_mib=_quantity("--memory-per-cell", memory_per_cell, UNITS_MIB, "800MiB or 4GiB"),
        retry=retry.value,
        max_failures=1 if fail_fast else max_failures,
        checkpoint_every=_checkpoints(checkpoint_every),
        trainer=trainer.value,
        save_weights=save_weights == "last",
        loggers=_loggers(log),
        workers=_count("--workers", workers, least=0),
    )


def parse_fields(flags: dict[str, str | None], settings: list[str]) -> dict[str, list[Any]]:
    """Read values of fields, from flags of their own and from ``--set``.

    Raises:
        UsageError: a field that is none, or comes twice, or a value that it cannot have.
    """
    from ablations.config import UsageError
    from ablations.config.values import parse_values

    given = {field: text for field, text in flags.items() if text is not None}
    if "classes" in given:
        given["classes"] = parse_classes(given["classes"])
    asked = {field: parse_values(field, text) for field, text in given.items()}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write FIELD=VALUE or FIELD=VALUE,VALUE")
        if field in asked:
            raise UsageError(f"--set {setting}: {field} is given already")
        if field == "seed":
            raise UsageError(f"--set {setting}: give seeds as --seeds or --seed")
        asked[field] = parse_values(field, text)
    return asked


def parse_devices(device: str | None, devices: str | None) -> tuple[str, ...]:
    """Read which devices to train on.

    Raises:
        UsageError: a value that is none, or both options at once.
    """
    from ablations.config import UsageError

    if devices is None:
        return (device or "auto",)
    if device is not None:
        raise UsageError("give --device or --devices, not both")
    numbers = [part.strip() for part in devices.split(",")]
    if not all(re.fullmatch("[0-9]+", number) for number in numbers):
        raise UsageError(f"--devices {devices}: give numbers of GPUs, as 0,1")
    return tuple(f"cuda:{int(number)}" for number in numbers)


def parse_shard(text: str | None) -> tuple[int, int]:
    """Read which part of the cells to run: its number, from 1, and how many parts there are.

    Raises:
        UsageError: anything else.
    """
    from ablations.config import UsageError

    if text is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise UsageError(f"--shard {text}: give I/N with I from 1 to N")
    return number, parts


def parse_numbers(option: str, text: str, *, least: int = 0) -> list[int]:
    """Read a comma list of numbers.

    Raises:
        UsageError: anything else, or one that comes twice.
    """
    from ablations.config import UsageError

    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if re.fullmatch("[0-9]{1,6}", part)]
    if len(numbers) < len(parts) or min(numbers) < least or len(set(numbers)) < len(numbers):
        raise UsageError(f"{option} {text}: give numbers from {least} up, each once, as {least},{least + 1}")
    return numbers


def parse_sizes(option: str, text: str) -> list[tuple[int, int]]:
    """Read a comma list of image sizes, in pixels: a square's side, or HEIGHTxWIDTH.

    Raises:
        UsageError: anything else, or one that comes twice.

    >>> parse_sizes("--sizes", "224,800x1333")
    [(224, 224), (800, 1333)]
    """
    from ablations.config import UsageError

    parts = [part.strip() for part in text.split(",")]
    matches = [re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", part) for part in parts]
    found = [(int(match[1]), int(match[2] or match[1])) for match in matches if match]
    if len(found) < len(parts) or len(set(found)) < len(found):
        raise UsageError(f"{option} {text}: give sides or HEIGHTxWIDTH from 1 up, each once, as 224,800x1333")
    return found


def parse_classes(text: str) -> str:
    """Read which classes are taken: the text of the field, or ``@FILE`` with a name a line.

    Raises:
        UsageError: the file cannot be read, or has no names.
    """
    from ablations.config import UsageError
    from ablations.config.types import JOINT

    if not text.startswith("@"):
        return text
    try:
        names = [line.strip() for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {text}: the file cannot be read: {error}") from error
    if len(names) < 2:
        raise UsageError(f"--classes {text}: give a file with two names or more, one a line")
    return JOINT.join(names)


def _count(option: str, text: str, *, least: int = 1) -> int | None:
    from ablations.config import UsageError

    if text == "auto":
        return None
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        raise UsageError(f"{option} {text}: give auto or a number from {least} up")
    return int(text)


def _quantity(option: str, text: str | None, units: dict[str, float], examples: str) -> float | None:
    from ablations.config import UsageError

    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    if not match or match[2] not in units or float(match[1]) == 0:
        raise UsageError(f"{option} {text}: give {examples}")
    return float(match[1]) * units[match[2]]


def _checkpoints(text: str) -> int | timedelta | None:
    if re.fullmatch(r"[0-9]+|auto", text):
        return _count("--checkpoint-every", text, least=0)
    units = {unit: seconds for unit, seconds in UNITS_S.items() if unit}
    seconds = _quantity("--checkpoint-every", text, units, "a number of epochs, or time as 90s, 10m or 2h")
    assert seconds is not None, "there is a text"
    return timedelta(seconds=seconds)


def _loggers(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
