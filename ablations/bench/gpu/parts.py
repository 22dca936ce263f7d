"""The parts of the command, most important first: what each runs, its time limit, its file of results."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from ablations.bench.gpu.choice import choose_fields
from ablations.bench.gpu.data import data_folder
from ablations.bench.processes import GRACE_S, ROOT, python

NORMS = "xnorm,l2,single_l2,layernorm,softmax"
"""The normalisers of the paper's comparison."""

OURS, OTHERS = "ufo_vit_s", "timm:xcit_small_12_p16_224,timm:deit_small_patch16_224,timm:vit_small_patch16_224"

ENGINE_GRACE_S, STUDY_GRACE_S = 15.0, 25.0
"""Seconds in which a stopped runner ends its workers and their MPS, and in which a study also writes its report."""

STUDY_JOBS = 8
"""Concurrent cells of the study: by default the first would run alone, to measure its memory."""

RESERVE_S, SMALL_RESERVE_S = 10.0, 2.0
"""Seconds at the end for the files, of which the archive of the study takes most; in the small form."""

LEAST_SHARE = 0.2
"""Share of its time limit without which a part is not begun."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command with a time limit.

    Args:
        name: name of the part.
        command: its command.
        limit_s: its time limit in seconds.
        least_s: seconds without which it is not begun.
        grace_s: seconds that it has to end after its limit.
        made: file or folder in the work folder that it fills.
        result: file of its results in the output folder; several parts may share one; empty: none.
        missing: what it lacks on this machine; empty: nothing.
        resumes: whether another call resumes it.
    """

    name: str
    command: Sequence[str]
    limit_s: float
    least_s: float
    made: Path
    grace_s: float = GRACE_S
    result: str = ""
    missing: str = ""
    resumes: bool = False


@dataclass(frozen=True, kw_only=True)
class GpuBench:
    """Settings of the command; on the CPU every part has a small form.

    Args:
        out: folder of the results, an absolute path.
        work: folder of everything else, an absolute path.
        device: device to measure on.
        seconds: most seconds in all.
        data_file: archive of a folder of images; None: there is no such data.
        fields: fields of the study's cells, as ``FIELD=VALUE``; empty: those of `choose_fields`.
        jobs: number of concurrent cells of the study.
        limits: time limits in seconds that replace those of the parts, by name.
        only: names of the parts to run; empty: all.
    """

    out: Path
    work: Path
    device: torch.device
    seconds: float
    data_file: Path | None = None
    fields: Sequence[str] = ()
    jobs: int | str = STUDY_JOBS
    limits: Mapping[str, float] = field(default_factory=dict)
    only: Sequence[str] = ()

    @property
    def is_small(self) -> bool:
        """Whether the parts have their small form."""
        return self.device.type == "cpu"

    @property
    def reserve_s(self) -> float:
        """Seconds that no part may take."""
        return SMALL_RESERVE_S if self.is_small else RESERVE_S

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.work / "studies" / ("digits-smoke" if self.is_small else "cifar10")

    @property
    def data(self) -> Path | None:
        """Folder of the images."""
        return None if self.data_file is None else data_folder(self.data_file, self.work)

    def parts(self) -> list[Part]:
        """Return the parts in their order."""
        made = [self._tests(), self._data(), self._grid(), self._model(), self._attention()]
        made += [] if self.is_small else [self._compiled()]  # compiling takes longer than all small parts
        return [*made, self._study()]

    def _part(
        self,
        name: str,
        limit_s: float,
        command: Sequence[str],
        *,
        missing: str = "",
        result: str = "",
        made: str = "",
        grace_s: float = GRACE_S,
    ) -> Part:
        limit_s = self.limits.get(name, limit_s)
        return Part(
            name=name,
            command=command,
            limit_s=limit_s,
            least_s=LEAST_SHARE * limit_s,
            made=self.work / (made or f"{name}.csv"),
            result=result,
            missing=missing,
            grace_s=grace_s,
        )

    def _bench(
        self,
        name: str,
        limit_s: float,
        *options: object,
        result: str,
        missing: str = "",
        grace_s: float = GRACE_S,
    ) -> Part:
        kind = "model" if name == "compiled" else name
        where = ("--device", self.device, "--csv", self.work / f"{name}.csv")
        command = python("ablations", "bench", kind, *options, *where)
        return self._part(name, limit_s, command, result=result, missing=missing, grace_s=grace_s)

    def _tests(self) -> Part:
        missing = "" if (ROOT / "tests" / "gpu").is_dir() else "it needs a checkout: no tests/gpu beside the package"
        if find_spec("pytest") is None:
            missing = "pytest is not installed"
        at_once = ("-n", 4, "--dist", "loadgroup") if not self.is_small and find_spec("xdist") else ()
        small = ("-m", "gpu and not slow and not process", "-k", "test_cells or xnorm")
        chosen = small if self.is_small else ("-m", "gpu")
        where = ("--device", self.device.type, "--results", self.work / "tests.json")
        options = ("tests/gpu", *chosen, "-q", "-p", "no:cacheprovider", *at_once, *where)
        return self._part(
            "tests",
            40 if self.is_small else 150,
            python("pytest", *options),
            missing=missing,
            result="tests.json",
            made="tests.json",
            grace_s=ENGINE_GRACE_S,
        )

    def _model(self) -> Part:
        if self.is_small:
            small = ("--models", "ufo_vit_pico", "--sizes", 32, "--batch", 4, "--rounds", 1)
            return self._bench("model", 20, *small, result="models.csv")
        nets = f"{OURS},{OTHERS}" if find_spec("timm") else OURS
        options = ("--models", nets, "--sizes", "224,512,1024", "--base-batch", 128, "--precision", "bf16-mixed")
        return self._bench("model", 70, *options, "--rounds", 5, result="models.csv")

    def _compiled(self) -> Part:
        nets = f"{OURS},{OTHERS.partition(',')[0]}" if find_spec("timm") else OURS
        options = ("--models", nets, "--sizes", 224, "--base-batch", 128, "--precision", "bf16-mixed")
        missing = "" if shutil.which("cc") or shutil.which("gcc") else "torch.compile needs a C compiler"
        return self._bench("compiled", 180, *options, "--compile", "--rounds", 5, result="models.csv", missing=missing)

    def _attention(self) -> Part:
        if self.is_small:
            small = ("--norm", "xnorm,softmax", "--tokens", "64,256", "--training", "--rounds", 1)
            return self._bench("attention", 20, *small, result="attention.csv")
        options = ("--norm", NORMS, "--precision", "bf16-true", "--training", "--head-dim", 64, "--images", 4)
        return self._bench("attention", 60, *options, "--rounds", 3, result="attention.csv")

    def _data(self) -> Part:
        missing = ""
        if self.data_file is None:
            missing = "no --data-file"
        elif not self.data_file.is_file():
            missing = f"no file {self.data_file}"
        command = python("ablations.bench.gpu.data", self.data_file, self.work)
        made = "" if self.data is None else str(self.data.relative_to(self.work))
        return self._part("data", 60, command, missing=missing, made=made)

    def _grid(self) -> Part:
        small = ("--data", "digits", "--cells", "1,2", "--ways", "eager,graph,stacked", "--epochs", 2, "--images", 128)
        large = ("--cells", "1,2,4,8", "--epochs", 3, "--images", 12_800, "--model", "ufo_vit_micro", *self._spec)
        missing = "" if self.is_small else self._data().missing
        options = small if self.is_small else large
        return self._bench(
            "grid",
            30 if self.is_small else 140,
            *options,
            result="grid.csv",
            missing=missing,
            grace_s=GRACE_S if self.is_small else ENGINE_GRACE_S,
        )

    @property
    def _spec(self) -> tuple[str, ...]:
        return ("--data", f"imagefolder:{self.data}")

    def _study(self) -> Part:
        small = ("--data", "digits", "--norm", "xnorm,l2", "--study", "digits", "--smoke", "--jobs", 2)
        large = (
            *(*self._spec, "--norm", NORMS, "--study", "cifar10", "--model", "ufo_vit_micro"),
            *("--seeds", 8, "--epochs", 20, "--jobs-per-gpu", self.jobs, "--checkpoint-every", 1),
        )
        chosen = self.fields or (() if self.is_small else choose_fields(self.study, self.out / "grid.csv"))
        fields = [part for each in chosen for part in ("--set", each)]
        where = ("--device", self.device, "--out", self.study.parent)
        return Part(
            name="study",
            command=python("ablations", "run", *(small if self.is_small else large), *fields, *where),
            limit_s=self.limits.get("study", self.seconds),
            least_s=min(10.0, self.limits.get("study", 10.0)),
            grace_s=GRACE_S if self.is_small else STUDY_GRACE_S,
            made=self.study / "results.csv",
            result="study.csv",
            missing="" if self.is_small else self._data().missing,
            resumes=True,
        )
