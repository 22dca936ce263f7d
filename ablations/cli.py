"""The commands: parsing and printing, no logic. What a command does not need is not imported."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ablations.plan import Plan
    from ablations.study import CellConfig

OK, SOME_FAILED, USAGE, NO_OUTCOME, INTERRUPTED = 0, 1, 2, 3, 130

LOG_LINES = 20
WIDTH_OF_A_LOG = 120

app = typer.Typer(
    help="Train a vision transformer under every attention normaliser, paired, and say how sure the result is.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Listed(StrEnum):
    """What ``list`` can list."""

    NORMS = "norms"
    MODELS = "models"
    DATA = "data"
    STUDIES = "studies"


class Rerun(StrEnum):
    """Which finished cells ``run`` runs again."""

    STALE = "stale"
    ALL = "all"


Out = Annotated[Path, typer.Option("--out", help="Folder that holds the studies.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, progress on stderr.")]
Plugin = Annotated[list[str] | None, typer.Option("--plugin", help="Module that registers normalisers; repeatable.")]


def main() -> None:
    """Run the command line and leave with its exit code; a usage error is one line on stderr."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if (line := _usage_line(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = USAGE
    if code == INTERRUPTED:  # what the option parser makes of a KeyboardInterrupt
        print("interrupted", file=sys.stderr)
    sys.exit(code or OK)


def _usage_line(error: Exception) -> str | None:
    """Return the one line of an error that the user made; None where the error is ours."""
    if hasattr(error, "format_message"):  # the option parser's own errors
        return " ".join(str(error.format_message()).split())
    from ablations.study import UsageError
    from ufo.registry import UnknownNameError

    return " ".join(str(error).split()) if isinstance(error, (UsageError, UnknownNameError)) else None


@app.command()
def run(
    norm: Annotated[str | None, typer.Option(help="Normalisers, a comma list. [default: xnorm,l2,single_l2]")] = None,
    data: Annotated[
        str | None, typer.Option(help="digits, cifar10, cifar100 or imagefolder:DIR. [default: digits]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Models. [default: by the size of the images]")] = None,
    seeds: Annotated[str | None, typer.Option(help="How many (8: 0 to 7), or which (0-3,7). [default: 8]")] = None,
    seed: Annotated[str | None, typer.Option(help="One seed.")] = None,
    lr: Annotated[str | None, typer.Option(help="Peak learning rates.")] = None,
    epochs: Annotated[str | None, typer.Option(help="Epochs.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Images of a batch.")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field: FIELD=VALUE[,VALUE...]; repeatable.")
    ] = None,
    compare: Annotated[str | None, typer.Option(help="Field whose values are the arms. [default: norm]")] = None,
    ref: Annotated[str | None, typer.Option(help="Arm to compare with. [default: xnorm, or the first]")] = None,
    experiment: Annotated[Path | None, typer.Option(help="YAML file that gives all of it; flags win.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study. [default: COMPARE-DATA]")] = None,
    out: Out = Path("runs"),
    data_root: Annotated[Path, typer.Option(help="Folder of torchvision's data.")] = Path("data"),
    download: Annotated[bool, typer.Option("--download", help="Fetch data that is missing.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    jobs: Annotated[str, typer.Option(help="Cells side by side; auto: one a core on a CPU, 8 at most.")] = "auto",
    plugin: Plugin = None,
    rerun: Annotated[Rerun | None, typer.Option(help="Run finished cells again.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="1 epoch, 256 images, 2 seeds, a study of its own.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and end.")] = False,
    as_json: Json = False,
) -> int:
    """Run what is missing of a study, and print its table."""
    from ablations.api import describe_plan
    from ablations.plan import make_plan
    from ablations.request import make_request

    flags = {"norm": norm, "data": data, "model": model, "lr": lr, "epochs": epochs}
    flags |= {"batch_size": batch_size, "precision": precision}
    request = make_request(
        experiment=experiment,
        asked=_parse_fields(
            {field: text for field, text in flags.items() if text is not None}, set_ or [], seeds, seed
        ),
        smoke=smoke,
        compare=compare,
        ref=ref,
        name=study,
        plugins=tuple(plugin or ()),
        out=out,
        data_root=data_root,
        download=download,
        device=device,
        jobs=_parse_jobs(jobs),
        rerun=rerun.value if rerun else None,
    )
    console = _console(as_json)
    plan = make_plan(request)
    for line in describe_plan(plan):
        console.print(line, markup=False, soft_wrap=True)
    if dry_run:
        if as_json:
            typer.echo(json.dumps({"study": plan.study.model_dump(mode="json"), "states": plan.states}, indent=2))
        return OK
    code = _finish(plan.store.folder, console, as_json=as_json, code=_execute(plan, console))
    if code == INTERRUPTED:
        sys.exit(code)  # what is to be said of it has been
    return code


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="Folder of the study.")],
    as_json: Json = False,
) -> int:
    """Rebuild a study's table and figures from its cells, and print the table."""
    return _finish(study, _console(as_json), as_json=as_json, code=OK)


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="A cell's id, the name of its folder, or the beginning of either.")],
    out: Out = Path("runs"),
    as_json: Json = False,
) -> int:
    """Print a cell's configuration, outcome and the end of its log."""
    from ablations.store import find_cell

    record = find_cell(out, cell)
    if as_json:
        config = record.config.model_dump(mode="json")
        typer.echo(json.dumps({"folder": str(record.folder), "config": config, "outcome": record.outcome}, indent=2))
        return OK
    console = _console(as_json)
    console.print(str(record.folder), markup=False, soft_wrap=True)
    for title, fields in (("configuration", record.config.model_dump(mode="json")), ("outcome", record.outcome)):
        table = Table(title=title, show_header=False, title_justify="left", box=None)
        for field, value in fields.items():
            table.add_row(field, Text("\n".join(value) if field == "traceback" else str(value)))
        console.print(table)
    path = record.folder / "log.txt"
    log = path.read_text().splitlines() if path.is_file() else ["there is none"]
    console.print("\n".join(["end of log.txt", *log[-LOG_LINES:]]), markup=False, soft_wrap=True)
    return OK


@app.command("list")
def list_(
    what: Annotated[Listed, typer.Argument(help="norms, models, data or studies.")],
    out: Out = Path("runs"),
    plugin: Plugin = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Json = False,
) -> int:
    """List what there is."""
    from ablations.provenance import import_plugin

    for name in plugin or ():
        import_plugin(name)
    from ablations import listing
    from ablations.study import UsageError

    if as_json and as_markdown:
        raise UsageError("give --json or --markdown, not both")

    title, head, rows = listing.listing(what.value, out=out)
    if as_json:
        typer.echo(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        return OK
    if as_markdown:
        from ablations.report import markdown_table

        typer.echo(markdown_table(head, rows), nl=False)
        return OK
    _print_table(_console(as_json), title, head, rows)
    if what is Listed.NORMS:
        _print_table(_console(as_json), "contrasts: pairs of arms that differ in one thing", *listing.contrasts())
    return OK


def _parse_fields(
    flags: dict[str, str | None], settings: list[str], seeds: str | None, seed: str | None
) -> dict[str, list[Any]]:
    from ablations.study import UsageError
    from ablations.study.cell import parse_values
    from ablations.study.seeds import parse_seeds

    asked = {field: parse_values(field, text) for field, text in flags.items() if text is not None}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write FIELD=VALUE or FIELD=VALUE,VALUE")
        if field in asked:
            raise UsageError(f"--set {setting}: {field} is given already")
        if field == "seed":
            raise UsageError(f"--set {setting}: give seeds as --seeds or --seed")
        asked[field] = parse_values(field, text)
    if seeds is not None and seed is not None:
        raise UsageError("give --seeds or --seed, not both")
    if seed is not None:
        asked["seed"] = parse_values("seed", seed)
        if len(asked["seed"]) > 1:
            raise UsageError(f"--seed {seed}: give one; several as --seeds {seed}")
    if seeds is not None:
        asked["seed"] = parse_seeds(seeds)
    return asked


def _parse_jobs(text: str) -> int | None:
    from ablations.study import UsageError

    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--jobs {text}: give auto or a number from 1 up")
    return int(text)


def _execute(plan: Plan, console: Console) -> int:
    """Run the plan with one line for each finished cell; return the exit code of what was run."""
    from ablations.api import execute
    from ablations.study import Interrupted

    if not plan.todo:
        console.print("the cell is done" if len(plan.cells) == 1 else f"all {len(plan.cells)} cells are done")
    total, num_done, code = len(plan.todo), 0, OK
    out = "" if plan.store.folder.parent == Path("runs") else f" --out {plan.store.folder.parent}"

    def on_done(config: CellConfig, outcome: dict[str, Any]) -> None:
        nonlocal num_done, code
        num_done += 1
        kept = ""
        if outcome["outcome"] == "failed":
            code = SOME_FAILED
            kept = "  its earlier result is kept" if plan.states[config.id] in ("done", "stale") else ""
        arm, condition = plan.study.arm_of(config), plan.study.condition_of(config)
        where = f"{arm}{f' ({condition})' if condition else ''} seed {config.seed}"
        accuracy = outcome["test_accuracy_pct"]
        what = "" if accuracy is None else f"test accuracy {accuracy:.2f} %"
        kind = f"{outcome['outcome']} {outcome['kind']}".strip()
        line = f"[{num_done}/{total}] {where}: {kind}  {what}  {outcome['seconds']:.1f} s"
        show = f"python -m ablations show {config.id}{out}"
        detail = f"  {outcome['detail']} ({show})" if outcome["detail"] else ""
        console.print(line + detail + kept, markup=False, soft_wrap=True)

    try:
        execute(plan, on_done=on_done)
    except Interrupted as reason:
        why = f" ({reason})" if str(reason) else ""
        console.print(f"interrupted{why}: what is finished is kept; the same command goes on", soft_wrap=True)
        return INTERRUPTED
    return code


def _finish(folder: Path, console: Console, *, as_json: bool, code: int) -> int:
    """Rebuild the report, print it and return the exit code, given that of what was run."""
    from ablations.api import make_report
    from ablations.report import text_rows

    made = make_report(folder)
    has_result = made.cells["outcome"].isin(["ok", "diverged"])
    if code != INTERRUPTED and not has_result.all():
        code = SOME_FAILED
    if code != INTERRUPTED and not has_result.any():
        code = NO_OUTCOME
    _print_table(console, made.study.name, *text_rows(made.table, made.study))
    for line in [*made.notes, "", *(str(file) for file in made.files)]:
        console.print(line, markup=False, soft_wrap=True)
    if as_json:
        cells, table = (json.loads(frame.to_json(orient="records")) for frame in (made.cells, made.table))
        files = [str(file) for file in made.files]
        summary = {"study": made.study.name, "exit_code": code, "notes": made.notes, "files": files}
        typer.echo(json.dumps({**summary, "table": table, "cells": cells}, indent=2))
    return code


def _print_table(console: Console, title: str, head: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in head:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _console(as_json: bool) -> Console:
    width = None if sys.stdout.isatty() else WIDTH_OF_A_LOG
    return Console(stderr=as_json, highlight=False, width=width)
