"""Options that only the command line has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from ablations.config import UsageError, parsing
from ablations.config.commands import DevicesOption, Folder, SeedOptions
from ablations.config.declare import Option, Options, reads
from ablations.config.errors import shown
from ablations.config.values import parse_values


class JsonOption(Options):
    """The output for scripts."""

    as_json: Annotated[bool, Option("Print JSON on standard output, progress on standard error.", flag="--json")] = (
        False
    )


class DryRunOption(Options):
    """The plan without its run."""

    dry_run: Annotated[bool, Option("Print the plan and exit; data are decoded and a few steps timed.")] = False


Device = Annotated[
    str | None,
    reads(parsing.device),
    Option("One device: auto (the first GPU, otherwise the CPU), cpu, cuda, cuda:N or mps.", "auto", metavar="DEVICE"),
]


class DeviceOption(Options):
    """The device of a measurement."""

    device: Device = None


class DeviceFlags(DevicesOption):
    """One device, or several GPUs."""

    device: Device = None

    @model_validator(mode="before")
    @classmethod
    def _names_devices_once(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "device" not in given:
            return given
        if "devices" in given:
            raise UsageError("give --device or --devices, not both")
        try:
            return {**given, "devices": [parsing.device(given["device"])]}
        except ValueError as error:
            raise UsageError(f"--device {shown(given['device'])}: {error}") from None


class SeedFlags(SeedOptions):
    """Several seeds, or one."""

    seed: Annotated[str | None, Option("One seed.", metavar="N")] = None

    @model_validator(mode="before")
    @classmethod
    def _names_seeds_once(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "seed" not in given:
            return given
        if "seeds" in given:
            raise UsageError("give --seeds or --seed, not both")
        values = parse_values("seed", given["seed"])
        if len(values) > 1:
            raise UsageError(f"--seed {given['seed']}: give one; several as --seeds {given['seed']}")
        return {**given, "seeds": values}


class StudyArgument(Options):
    """A study by its folder."""

    study: Annotated[Folder, Option("Folder of the study.", is_argument=True)]


class StudiesArgument(Options):
    """Studies by their folders."""

    studies: Annotated[
        Sequence[Path],
        reads(lambda folders: [Path(folder) for folder in folders]),
        Option("Folder of the study, or of several: strata of one report.", is_argument=True),
    ]
    ref: Annotated[str | None, Option("Arm that the others are compared with.", "that of the study", metavar="ARM")] = (
        None
    )


class StudyDataOption(Options):
    """The data sets of a stored study."""

    data: Annotated[
        str | None, Option("Data sets of the study, as for run; needed if one is a folder: a study stores no path.")
    ] = None

    @property
    def data_sets(self) -> list[str] | None:
        """Each data set; None: as the study names them."""
        return None if self.data is None else parse_values("data", self.data)
