"""The schema of outcome.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from ablations.config.limits import Name

RECORD_FORMAT = 1
"""Version of outcome.json."""

FILE_NAME = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""Pattern of the path of a file in a cell's folder or in a folder there; it cannot lead out of it."""

FileName = Annotated[str, Field(pattern=FILE_NAME, max_length=255)]

Digests = Annotated[dict[FileName, Name], Field(max_length=10_000)]

Percent = Annotated[float, Field(ge=0, le=100)]

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that a table of integers holds."""

Versions = Annotated[dict[Name, Name | None], Field(max_length=100)]

Stacked = Annotated[list[Count], Field(max_length=1_000)]

Seconds = Annotated[float, Field(ge=0, le=1e12)]

Mebibytes = Annotated[float, Field(ge=0, le=1e12)]


class Attempt(BaseModel, strict=True):
    """The required fields of an earlier attempt."""

    seconds: Seconds


class Git(BaseModel, strict=True):
    """The revision of the code."""

    revision: Name
    dirty: bool


class Machine(BaseModel, strict=True):
    """The machine, as far as it was recorded."""

    system: Name | None = None
    processor: Name | None = None
    cores: Count | None = None


class RanOn(BaseModel, strict=True):
    """What ran the cell: an engine, on a node by its id or hash, as a job of the cluster or of none."""

    engine: Name
    node: Name
    job: Name = ""


class Outcome(BaseModel, strict=True):
    """The required fields of an outcome.json; it may have others.

    Validate it with context ``score``, the name of the field that cells of its task are compared by.
    """

    outcome: Literal["ok", "diverged", "failed"]
    kind: Literal["", "nan", "exploded", "no_learning", "oom", "error", "killed", "timeout"]
    detail: str
    traceback: list[str] = []
    attempts: list[Attempt]
    source_hash: Name
    numerics: Name | None = None  # None: from version 0.1 or earlier, which only hashed the sources
    trainer: Name = "lean"
    versions: Versions  # None: a missing optional package, up to version 0.1
    device: Name
    cuda_settings: dict[str, Any] | None = None  # None: no CUDA, or before they were recorded
    stacked_seeds: Stacked = []  # of the cells that were trained with this one as a stack
    seconds: Seconds
    peak_memory_mib: Mebibytes | None
    peak_reserved_mib: Mebibytes | None = None
    test_accuracy_pct: Percent | None
    test_loss: float | None
    val_accuracy_pct: Percent | None = None
    val_loss: float | None = None
    test_box_ap_pct: Percent | None = None
    test_box_ap50_pct: Percent | None = None
    test_box_ap75_pct: Percent | None = None
    test_box_ap_small_pct: Percent | None = None
    test_box_ap_medium_pct: Percent | None = None
    test_box_ap_large_pct: Percent | None = None
    val_box_ap_pct: Percent | None = None
    val_box_ap50_pct: Percent | None = None
    val_box_ap75_pct: Percent | None = None
    val_box_ap_small_pct: Percent | None = None
    val_box_ap_medium_pct: Percent | None = None
    val_box_ap_large_pct: Percent | None = None
    test_mask_ap_pct: Percent | None = None
    test_mask_ap50_pct: Percent | None = None
    test_mask_ap75_pct: Percent | None = None
    test_mask_ap_small_pct: Percent | None = None
    test_mask_ap_medium_pct: Percent | None = None
    test_mask_ap_large_pct: Percent | None = None
    val_mask_ap_pct: Percent | None = None
    val_mask_ap50_pct: Percent | None = None
    val_mask_ap75_pct: Percent | None = None
    val_mask_ap_small_pct: Percent | None = None
    val_mask_ap_medium_pct: Percent | None = None
    val_mask_ap_large_pct: Percent | None = None
    chance_pct: Percent
    init_hash: Name | None
    split_hash: Name | None
    epoch_hashes: list[str]
    epochs_run: Count
    num_parameters: Count | None
    started: Name | None = None
    git: Git | None = None
    machine: Machine = Machine()
    ran_on: RanOn | None = None  # None: of this machine, up to version 0.2
    resumed_after_epochs: list[Count] = []
    digests: Digests = {}  # SHA-256 of the cell's files; up to version 0.2 there are none

    @model_validator(mode="after")
    def _is_scored(self, info: ValidationInfo) -> Outcome:
        assert info.context is not None, "validate with score as context"
        score = info.context["score"]
        if getattr(self, score) is None and (self.outcome == "ok" or self.kind == "no_learning"):
            raise ValueError(f"{score} is missing, but the cell is {self.kind or 'ok'}")
        return self
