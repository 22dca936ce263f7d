"""Commands that measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablations.cli.app import OK, SOME_FAILED, app
from ablations.cli.options import DataRoot, Device, Init, Json, StudyData
from ablations.cli.printing import make_console, print_lines

if TYPE_CHECKING:
    from ablations.bench.harness import Row
    from ablations.bench.loader import LoaderRow

bench = typer.Typer(help="Measure time and memory.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.callback()
def group() -> None:
    """Measure time and memory."""


@bench.command()
def harness(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each way is timed once in each.")] = 5,
    fresh_cells: Annotated[int, typer.Option(min=1, help="Cells a round, of one fresh process a cell.")] = 4,
    csv: Annotated[Path | None, typer.Option(help="File for one row per round and contender.")] = None,
    as_json: Json = False,
) -> int:
    """Time this engine beside bare loops and one fresh process a cell, on 3 arms x 8 seeds of digits."""
    import pandas as pd

    from ablations.bench.harness import bench_harness
    from ablations.bench.summary import describe, ratios, summarise

    _check_folders(csv=csv)
    console = make_console(as_json)

    measured: list[Row] = []

    def on_row(row: Row) -> None:
        measured.append(row)
        if csv is not None:
            pd.DataFrame(measured).to_csv(csv, index=False)  # after each: it takes long, and may be stopped
        cells = f"{row.num_cells} cell{'s' * (row.num_cells > 1)}"
        print_lines(
            console, [f"round {row.round}/{rounds}  {row.quantity} {row.contender}: {cells}, {row.seconds:.2f} s"]
        )

    rows = bench_harness(rounds=rounds, fresh_cells=fresh_cells, on_row=on_row)
    print_lines(console, describe(rows))
    if as_json:
        frames = {"rows": rows, "medians": summarise(rows), "ratios": ratios(rows)}
        typer.echo(json.dumps({name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}))
    return OK


@bench.command()
def cost(
    study: Annotated[Path, typer.Argument(help="Folder of the study.")],
    data: StudyData = None,
    data_root: DataRoot = Path("data"),
    device: Device = None,
    init: Init = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; each arm is timed once in each.")] = 15,
) -> int:
    """Measure what each arm of a study costs, and write it to its cost.csv, which the report draws and judges.

    Start it while nothing else runs: other work on the machine is in its times.
    """
    from dataclasses import replace

    import pandas as pd

    from ablations.bench.cost import Cost, measure_costs
    from ablations.cli.options import parse_devices, parse_init
    from ablations.config.request import request_of
    from ablations.config.values import parse_values
    from ablations.planning.plan import make_plan
    from ablations.store import Store, replacing

    asked = None if data is None else parse_values("data", data)
    request = request_of(Store(study).read_study(), folder=study, data=asked, data_root=data_root)
    plan = make_plan(replace(request, devices=parse_devices(device, None), init=parse_init(init)))
    console = make_console(False)
    failures: list[str] = []
    costs = measure_costs(
        plan,
        rounds=rounds,
        on_round=lambda number: print_lines(console, [f"round {number + 1}/{rounds}"]),
        on_failure=failures.append,
    )
    path = study / "cost.csv"
    with replacing(path) as scratch:
        pd.DataFrame(costs, columns=list(Cost._fields)).astype({"tokens": "Int64"}).to_csv(scratch, index=False)
    print_lines(console, [f"not measured, for it raises: {failure}" for failure in failures])
    print_lines(console, [f"{path}: {len(costs)} measurements; python -m ablations report {study} draws them"])
    return SOME_FAILED if failures else OK


@bench.command()
def loader(
    data: Annotated[str | None, typer.Option(help="A folder of images. [default: 800 made-up JPEGs]")] = None,
    workers: Annotated[str, typer.Option(help="Numbers of workers.")] = "0,1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; everything is timed once in each.")] = 5,
    image_size: Annotated[int, typer.Option(min=1, help="Pixels of the crops.")] = 224,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a batch.")] = 64,
    images: Annotated[int | None, typer.Option(min=1, help="Images of a measurement. [default: all]")] = None,
    as_json: Json = False,
) -> int:
    """Time the loading of streamed images beside what as many processes can decode at most, by turns."""
    from ablations.bench.loader import bench_loader, describe_loader
    from ablations.cli.options import parse_numbers

    console = make_console(as_json)

    def on_row(row: LoaderRow) -> None:
        rate = f"{row.images_per_s:.0f} images/s"
        print_lines(console, [f"round {row.round}/{rounds}  workers {row.workers}  {row.quantity}: {rate}"])

    rows = bench_loader(
        data,
        workers=parse_numbers("--workers", workers),
        rounds=rounds,
        image_size=image_size,
        batch_size=batch_size,
        num_images=images,
        on_row=on_row,
    )
    print_lines(console, describe_loader(rows))
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows]))
    return OK


@bench.command()
def attention(
    norm: Annotated[str | None, typer.Option(help="Normalisers. [default: every one]")] = None,
    tokens: Annotated[str, typer.Option(help="Numbers of tokens.")] = "196,784,1024,3136,4096,16384",
    heads: Annotated[int, typer.Option(min=1, help="Heads.")] = 8,
    head_dim: Annotated[int, typer.Option(min=1, help="Width of a head.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; everything is timed once in each.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a CPU.")] = 1,
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="File for the measurements.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw them, as this file with .png and .pdf.")] = None,
    as_json: Json = False,
) -> int:
    """Time the core of attention alone at growing numbers of tokens: which normaliser is linear in them."""
    import pandas as pd

    from ablations.bench.attention import bench_attention, describe_attention, draw_attention, per_token
    from ablations.cli.options import parse_numbers
    from ablations.engine.devices import find_device
    from ufo.norms import NORMS

    _check_folders(csv=csv, figure=figure)
    console = make_console(as_json)
    rows = bench_attention(
        list(NORMS) if norm is None else [name.strip() for name in norm.split(",")],
        tokens=parse_numbers("--tokens", tokens, least=1),
        num_heads=heads,
        head_dim=head_dim,
        rounds=rounds,
        num_threads=threads,
        device=find_device(device or "auto"),
        on_round=lambda number: print_lines(console, [f"round {number}/{rounds}"]),
    )
    costs = per_token(rows)
    print_lines(console, describe_attention(costs))
    if csv is not None:
        pd.DataFrame(rows).to_csv(csv, index=False)
    if figure is not None:
        print_lines(console, [str(file) for file in draw_attention(costs, figure)])
    if as_json:
        typer.echo(costs.to_json(orient="records"))
    return OK


CLASSIFIERS = "ufo_vit_s,timm:xcit_small_12_p16_224,timm:deit_small_patch16_224"
BACKBONES = "ufo_vit_s,timm:xcit_small_12_p16_224"


@bench.command()
def model(
    task: Annotated[str, typer.Option(help="classify, or detect: backbones with a feature pyramid.")] = "classify",
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="The first is compared with the others. "
            f"[default: {CLASSIFIERS}; of backbones ufo_vit_s and timm's XCiT]",
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Normalisers of each UFO-ViT. [default: xnorm; of backbones softmax too]")
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Pixels of images, HEIGHTxWIDTH or a side. [default: 224,384,512,1024; of backbones 800x1333]"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of a batch. [default: 8 of 224 px, fewer larger ones]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; everything is timed once in each.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a CPU. [default: all cores]")] = None,
    inference_only: Annotated[bool, typer.Option("--inference-only", help="No training steps.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Through torch.compile.")] = False,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="File for the measurements.")] = None,
    as_json: Json = False,
) -> int:
    """Time inference and training steps of nets beside each other, by turns, with their peak memory."""
    import pandas as pd
    import torch

    from ablations.bench.models import ModelBench, ModelRow, bench_models, describe_models
    from ablations.cli.options import parse_sizes
    from ablations.config import UsageError
    from ablations.config.types import TASKS
    from ablations.engine.devices import find_device

    _check_folders(csv=csv)
    if precision not in ("32-true", "bf16-mixed"):
        raise UsageError(f"--precision {precision}: give 32-true or bf16-mixed")
    if task not in TASKS:
        raise UsageError(f"--task {task}: give {' or '.join(TASKS)}")
    detects = task == "detect"
    models = (BACKBONES if detects else CLASSIFIERS) if models is None else models
    norm = ("xnorm,softmax" if detects else "xnorm") if norm is None else norm
    sizes = ("800x1333" if detects else "224,384,512,1024") if sizes is None else sizes
    console = make_console(as_json)

    def on_row(row: ModelRow) -> None:
        if row.quantity.endswith("_s"):
            what = f"{row.px} px  {row.quantity.removesuffix('_s')}  {row.model}: {row.value:.3f} s"
            print_lines(console, [f"round {row.round}/{rounds}  {what}"])

    rows = bench_models(
        ModelBench(
            models=[name.strip() for name in models.split(",")],
            norms=[name.strip() for name in norm.split(",")],
            sizes=parse_sizes("--sizes", sizes),
            batch=batch,
            rounds=rounds,
            compiled=compiled,
            precision=precision,
            num_threads=threads or torch.get_num_threads(),
            device=find_device(device or "auto"),
            training=not inference_only,
            task=task,
        ),
        on_row=on_row,
    )
    print_lines(console, describe_models(rows))
    if csv is not None:
        pd.DataFrame(rows).to_csv(csv, index=False)
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows]))
    return OK


def _check_folders(**files: Path | None) -> None:
    """Refuse a file whose folder is not there before hours of measuring, not after.

    Raises:
        UsageError: the option and the folder.
    """
    from ablations.config import UsageError

    for option, file in files.items():
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"--{option} {file}: no folder {file.parent}")
