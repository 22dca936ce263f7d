"""Commands that measure what only a GPU shows: grids of cells, and everything at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ablations.cli.app import OK, SOME_FAILED
from ablations.cli.bench import CsvOption, Names, bench, checked_file, write_rows
from ablations.cli.command import command
from ablations.cli.options import DeviceOption, JsonOption
from ablations.cli.printing import make_console, print_json, print_lines
from ablations.config import UsageError, parsing
from ablations.config.commands import DataRootOption, Folder
from ablations.config.declare import Option, Options, reads
from ablations.config.field_values import read_fields

if TYPE_CHECKING:
    from ablations.bench.grid import GridRow


class GridOptions(DeviceOption, DataRootOption, CsvOption, JsonOption):
    """Options of ``bench grid``."""

    data: Annotated[str, Option("Data set, as for run.")] = "digits"
    model: Annotated[str | None, Option("Model, as for run.", "by image size")] = None
    cells: Annotated[
        Sequence[int], reads(lambda value: parsing.numbers(value, least=1)), Option("Numbers of concurrent cells.")
    ] = (1, 2, 4, 8)
    ways: Annotated[Names, Option("Ways of computing a step, a comma list.")] = (
        "eager",
        "graph",
        "stacked",
        "stacked_graph",
        "compiled",
    )
    epochs: Annotated[int, Field(ge=2), Option("Epochs of a cell; the first is not timed.")] = 3
    images: Annotated[int | None, Field(ge=1), Option("Training images.", "all")] = None


@command(bench, GridOptions)
def grid(options: GridOptions) -> int:
    """Measure cells an hour on one device, by concurrent cells and way of computing a step; on CUDA also kernels."""
    from ablations.bench.grid import WAYS, GridBench, bench_grid, describe_grid
    from ablations.engine.devices import find_device

    csv = checked_file("--csv", options.csv)
    if unknown := [way for way in options.ways if way not in WAYS]:
        raise UsageError(f"--ways {unknown[0]}: unknown; choose from {', '.join(WAYS)}")
    settings = GridBench(
        data=options.data,
        model=options.model,
        cells=options.cells,
        ways=[way for way in WAYS if way in options.ways],
        epochs=options.epochs,
        images=options.images,
        device=find_device(options.device or "auto"),
        data_root=Path(options.data_root),
    )
    console = make_console(options.as_json)
    measured: list[GridRow] = []

    def on_row(row: GridRow) -> None:
        measured.append(row)
        write_rows(csv, measured)
        print_lines(console, describe_grid([row]))

    rows = bench_grid(settings, on_row=on_row)
    if options.as_json:
        print_json([row._asdict() for row in rows], indent=None)
    return SOME_FAILED if any(row.quantity == "failed" for row in rows) else OK


def _limits(value: Any) -> tuple[tuple[str, float], ...]:
    pairs = [str(each).partition("=") for each in value]
    limits = []
    for name, sign, seconds in pairs:
        try:
            limit_s = float(seconds)
        except ValueError:
            limit_s = 0.0
        if not limit_s > 0:
            raise UsageError(f"--limit {name}{sign}{seconds}: give PART=SECONDS")
        limits.append((name, limit_s))
    return tuple(limits)


class GpuOptions(Options):
    """Options of ``bench gpu``."""

    out: Annotated[Folder, Option("Folder of the results, at most eight files; a second call resumes.")] = "gpu"
    work: Annotated[Folder | None, Option("Folder of data, logs and the study.", "OUT-work")] = None
    minutes: Annotated[float, Field(gt=0), Option("Minutes that it takes at most.")] = 8
    device: Annotated[
        str, reads(parsing.device), Option("A CUDA GPU; cpu: a small form of the parts.", metavar="DEVICE")
    ] = "cuda"
    data_file: Annotated[
        Folder | None, Option("Archive of a folder of images, as cifar10.tar.xz with cifar10/train/ and test/.", "none")
    ] = None
    parts: Annotated[Names, Option("Parts to run, a comma list.", "all")] = ()
    limits: Annotated[
        Sequence[tuple[str, float]],
        reads(_limits),
        Option("Time limit of a part.", flag="--limit", metavar="PART=SECONDS", repeatable=True),
    ] = ()
    fields: Annotated[
        Sequence[str],
        reads(list),
        Option("A field of the study's cells, as for run.", flag="--set", metavar="FIELD=VALUE", repeatable=True),
    ] = ()
    jobs_per_gpu: Annotated[int, Field(ge=1), Option("Concurrent cells of the study on the GPU.", metavar="N")] = 8


@command(bench, GpuOptions)
def gpu(options: GpuOptions) -> int:
    """Test and measure everything that needs a GPU, in a few minutes: tests, nets, attention, grids, a study.

    A part that fails, or exceeds its time limit, costs only itself. The same command keeps finished parts.
    """
    from ablations.bench.gpu.parts import GpuBench
    from ablations.bench.gpu.run import run_bench
    from ablations.engine.devices import find_device

    read_fields(options.fields)  # so that a wrong one is found now
    device = find_device(options.device)
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {options.device}: give cuda, cuda:N, or cpu for the small form")
    out = Path(options.out).absolute()
    settings = GpuBench(
        out=out,
        work=out.with_name(f"{out.name}-work") if options.work is None else Path(options.work).absolute(),
        device=device,
        seconds=60 * options.minutes,
        data_file=None if options.data_file is None else Path(options.data_file).absolute(),
        fields=options.fields,
        jobs=options.jobs_per_gpu,
        limits=dict(options.limits),
        only=options.parts,
    )
    names = [part.name for part in settings.parts()]
    for flag, given in (("--parts", options.parts), ("--limit", dict(options.limits))):
        if unknown := [name for name in given if name not in names]:
            raise UsageError(f"{flag} {unknown[0]}: unknown; choose from {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the running part is stopped
    console = make_console(False)
    has_passed = run_bench(settings, on_line=lambda line: print_lines(console, [line]))
    print_lines(console, [f"{out / 'gpu.md'}: the results"])
    return OK if has_passed else SOME_FAILED
