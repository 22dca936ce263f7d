"""Commands that measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from ablations.cli.app import OK, SOME_FAILED, app
from ablations.cli.command import command
from ablations.cli.options import DeviceOption, JsonOption, StudyArgument, StudyDataOption
from ablations.cli.printing import make_console, print_json, print_lines
from ablations.config import parsing
from ablations.config.commands import DataRootOption, Folder, InitOption
from ablations.config.declare import Option, Options, reads
from ablations.config.values import plural

if TYPE_CHECKING:
    from ablations.bench.attention import AttentionRow
    from ablations.bench.harness import Row
    from ablations.bench.loader import LoaderRow
    from ablations.bench.models import ModelBench, ModelRow

bench = typer.Typer(help="Measure time and memory.", no_args_is_help=True)
app.add_typer(bench, name="bench")

AtLeastOne = Annotated[int, Field(ge=1)]
Names = Annotated[Sequence[str], reads(parsing.names)]


class CsvOption(Options):
    """The file of the measurements."""

    csv: Annotated[Folder | None, Option("File for the measurements.")] = None


@bench.callback()
def group() -> None:
    """Measure time and memory."""


class HarnessOptions(CsvOption, JsonOption):
    """Options of ``bench harness``."""

    rounds: Annotated[AtLeastOne, Option("Rounds; each contender is timed once in each.")] = 5
    fresh_cells: Annotated[AtLeastOne, Option("Cells of a round that are each run in a new process.")] = 4


@command(bench, HarnessOptions)
def harness(options: HarnessOptions) -> int:
    """Time this engine against bare loops and one new process for each cell, on 3 arms x 8 seeds of digits."""

    from ablations.bench.harness import bench_harness
    from ablations.bench.summary import describe, ratios, summarise

    csv = checked_file("--csv", options.csv)
    console = make_console(options.as_json)
    measured: list[Row] = []

    def on_row(row: Row) -> None:
        measured.append(row)
        write_rows(csv, measured)
        cells, where = plural(row.num_cells, "cell"), f"round {row.round}/{options.rounds}"
        print_lines(console, [f"{where}  {row.quantity} {row.contender}: {cells}, {row.seconds:.2f} s"])

    rows = bench_harness(rounds=options.rounds, fresh_cells=options.fresh_cells, on_row=on_row)
    print_lines(console, describe(rows))
    if options.as_json:
        frames = {"rows": rows, "medians": summarise(rows), "ratios": ratios(rows)}
        print_json({name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}, indent=None)
    return OK


class CostOptions(StudyArgument, StudyDataOption, DataRootOption, DeviceOption, InitOption):
    """Options of ``bench cost``."""

    rounds: Annotated[int, Field(ge=2), Option("Rounds; each arm is timed once in each.")] = 15


@command(bench, CostOptions)
def cost(options: CostOptions) -> int:
    """Measure the cost of each arm of a study, and write it to cost.csv in its folder, from which the report draws it.

    Start it while nothing else runs: other work on the machine adds to the times.
    """
    import pandas as pd

    from ablations.bench.cost import Cost, measure_costs
    from ablations.config.stored_request import request_of
    from ablations.planning.plan import make_plan
    from ablations.store import Store
    from ablations.store.provenance import plugin_lines
    from ablations.store.tidy_csv import write_csv

    study = Path(options.study)
    stored = Store(study).read_study()
    console = make_console(False)
    print_lines(console, plugin_lines(stored))
    request = request_of(stored, folder=study, data=options.data_sets, data_root=Path(options.data_root))
    devices = (options.device or "auto",)
    plan = make_plan(replace(request, devices=devices, init=parsing.folders(options.init)))
    failures: list[str] = []
    costs = measure_costs(
        plan,
        rounds=options.rounds,
        on_round=lambda number: print_lines(console, [f"round {number + 1}/{options.rounds}"]),
        on_failure=failures.append,
    )
    path = study / "cost.csv"
    write_csv(pd.DataFrame(costs, columns=list(Cost._fields)).astype({"tokens": "Int64"}), path)
    print_lines(console, [f"not measured, since it raises: {failure}" for failure in failures])
    print_lines(console, [f"{path}: {len(costs)} measurements; python -m ablations report {study} draws them"])
    return SOME_FAILED if failures else OK


class LoaderOptions(JsonOption):
    """Options of ``bench loader``."""

    data: Annotated[str | None, Option("Folder of images.", "800 generated JPEGs")] = None
    workers: Annotated[Sequence[int], reads(parsing.numbers), Option("Numbers of workers.")] = (0, 1, 2)
    rounds: Annotated[AtLeastOne, Option("Rounds; everything is timed once in each.")] = 5
    image_size: Annotated[AtLeastOne, Option("Pixels of the crops' sides.")] = 224
    batch_size: Annotated[AtLeastOne, Option("Images of a batch.")] = 64
    images: Annotated[int | None, Field(ge=1), Option("Images of a measurement.", "all")] = None


@command(bench, LoaderOptions)
def loader(options: LoaderOptions) -> int:
    """Time the loading of streamed images against the decoding limit of the same number of processes, in turns."""
    from ablations.bench.loader import bench_loader, describe_loader

    console = make_console(options.as_json)

    def on_row(row: LoaderRow) -> None:
        where, rate = f"round {row.round}/{options.rounds}", f"{row.images_per_s:.0f} images/s"
        print_lines(console, [f"{where}  workers {row.workers}  {row.quantity}: {rate}"])

    rows = bench_loader(
        options.data,
        workers=options.workers,
        rounds=options.rounds,
        image_size=options.image_size,
        batch_size=options.batch_size,
        num_images=options.images,
        on_row=on_row,
    )
    print_lines(console, describe_loader(rows))
    if options.as_json:
        print_json([row._asdict() for row in rows], indent=None)
    return OK


class AttentionOptions(DeviceOption, CsvOption, JsonOption):
    """Options of ``bench attention``."""

    norm: Annotated[Names | None, Option("Normalisers, a comma list.", "all")] = None
    tokens: Annotated[
        Sequence[int], reads(lambda value: parsing.numbers(value, least=1)), Option("Numbers of tokens.")
    ] = (196, 784, 1024, 3136, 4096, 16384)
    heads: Annotated[AtLeastOne, Option("Attention heads.")] = 8
    head_dim: Annotated[AtLeastOne, Option("Width of a head.")] = 16
    rounds: Annotated[AtLeastOne, Option("Rounds; everything is timed once in each.")] = 7
    threads: Annotated[AtLeastOne, Option("CPU threads.")] = 1
    precision: Annotated[Literal["32-true", "bf16-true"], Option("float32, or all in bfloat16.")] = "32-true"
    training: Annotated[bool, Option("Measure forward and backward pass too.")] = False
    images: Annotated[AtLeastOne, Option("Images at the most tokens; with fewer tokens as many tokens in all.")] = 1
    figure: Annotated[Folder | None, Option("File of a figure of them, written as .png and .pdf.")] = None


@command(bench, AttentionOptions)
def attention(options: AttentionOptions) -> int:
    """Time only the core of attention at growing numbers of tokens, to see which normaliser is linear in them."""
    import torch

    from ablations.bench.attention import bench_attention, describe_attention, draw_attention, per_token
    from ablations.engine.devices import find_device
    from ufo.norms import NORMS

    csv, figure = checked_file("--csv", options.csv), checked_file("--figure", options.figure)
    console = make_console(options.as_json)

    def on_rows(number: int, rows: list[AttentionRow]) -> None:
        last = rows[-1]
        print_lines(console, [f"round {number}/{options.rounds}  {last.norm}, {last.tokens} tokens"])
        write_rows(csv, rows)

    rows = bench_attention(
        list(NORMS) if options.norm is None else options.norm,
        tokens=options.tokens,
        num_heads=options.heads,
        head_dim=options.head_dim,
        rounds=options.rounds,
        num_threads=options.threads,
        device=find_device(options.device or "auto"),
        on_rows=on_rows,
        dtype=torch.float32 if options.precision == "32-true" else torch.bfloat16,
        training=options.training,
        images=options.images,
    )
    costs = per_token(rows)
    print_lines(console, describe_attention(costs))
    if figure is not None:
        print_lines(console, [str(file) for file in draw_attention(costs, figure)])
    if options.as_json:
        typer.echo(costs.to_json(orient="records"))
    return OK


CLASSIFIERS = ("ufo_vit_s", "timm:xcit_small_12_p16_224", "timm:deit_small_patch16_224")
BACKBONES = CLASSIFIERS[:2]


class ModelOptions(DeviceOption, CsvOption, JsonOption):
    """Options of ``bench model``."""

    task: Annotated[Literal["classify", "detect"], Option("Classifiers, or backbones with a feature pyramid.")] = (
        "classify"
    )
    models: Annotated[
        Names | None,
        Option(
            "Models, a comma list; the first is compared with the others.",
            f"{','.join(CLASSIFIERS)}; of backbones the first two",
        ),
    ] = None
    norm: Annotated[
        Names | None, Option("Normalisers of each UFO-ViT, a comma list.", "xnorm; of backbones xnorm,softmax")
    ] = None
    sizes: Annotated[
        Sequence[tuple[int, int]] | None,
        reads(parsing.sizes),
        Option("Pixels of images, a comma list: sides or HEIGHTxWIDTH.", "224,384,512,1024; of backbones 800x1333"),
    ] = None
    batch: Annotated[int | None, Field(ge=1), Option("Images of a batch at every size.", "by --base-batch")] = None
    base_batch: Annotated[AtLeastOne, Option("Images of a batch at 224 px; at other sizes as many pixels.")] = 8
    rounds: Annotated[AtLeastOne, Option("Rounds; everything is timed once in each.")] = 5
    threads: Annotated[int | None, Field(ge=1), Option("CPU threads.", "all cores")] = None
    inference_only: Annotated[bool, Option("Time no training steps.")] = False
    compiled: Annotated[bool, Option("Use torch.compile.", flag="--compile")] = False
    precision: Annotated[Literal["32-true", "bf16-mixed"], Option("float32, or autocast to bfloat16.")] = "32-true"

    def bench(self) -> ModelBench:
        """Return the benchmark, with the defaults of its task."""
        import torch

        from ablations.bench.models import ModelBench
        from ablations.engine.devices import find_device

        detects = self.task == "detect"
        return ModelBench(
            models=self.models or (BACKBONES if detects else CLASSIFIERS),
            norms=self.norm or (("xnorm", "softmax") if detects else ("xnorm",)),
            sizes=self.sizes or parsing.sizes("800x1333" if detects else "224,384,512,1024"),
            batch=self.batch,
            base_batch=self.base_batch,
            rounds=self.rounds,
            compiled=self.compiled,
            precision=self.precision,
            num_threads=self.threads or torch.get_num_threads(),
            device=find_device(self.device or "auto"),
            training=not self.inference_only,
            task=self.task,
        )


@command(bench, ModelOptions)
def model(options: ModelOptions) -> int:
    """Time inference and training steps of models, in turns, and measure their peak memory."""

    from ablations.bench.models import bench_models, describe_models

    csv = checked_file("--csv", options.csv)
    console = make_console(options.as_json)

    measured: list[ModelRow] = []

    def on_row(row: ModelRow) -> None:
        measured.append(row)
        write_rows(csv, measured)
        if row.quantity.endswith("_s"):
            what = f"{row.px} px  {row.quantity.removesuffix('_s')}  {row.model}: {row.value:.3f} s"
            print_lines(console, [f"round {row.round}/{options.rounds}  {what}"])

    rows = bench_models(options.bench(), on_row=on_row)
    print_lines(console, describe_models(rows))
    if options.as_json:
        print_json([row._asdict() for row in rows], indent=None)
    return OK


def checked_file(flag: str, file: str | Path | None) -> Path | None:
    """Return a file to be written; a missing folder is an error before hours of measuring, not after.

    Raises:
        UsageError: flag and folder, or a folder that cannot be read.
    """
    from ablations.config import UsageError
    from ablations.store.reading import exists

    path = None if file is None else Path(file)
    if path is not None and not (exists(path) or path.absolute().parent.is_dir()):
        raise UsageError(f"{flag} {file}: no folder {path.parent}")
    return path


def write_rows(csv: Path | None, rows: Sequence[Any]) -> None:
    """Write the measurements so far, if a file is named: a benchmark takes long, and may be stopped at any moment."""
    import pandas as pd

    from ablations.store.files import replacing

    if csv is not None:
        with replacing(csv) as scratch:
            pd.DataFrame(rows).to_csv(scratch, index=False)
