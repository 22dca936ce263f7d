"""The pages hold together: length, links, files, commands, options and the summary of the results."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import typing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml

from ablations.cli import bench, bench_gpu, bench_scale, bench_start, clean, foresee, look, run
from ablations.cli.app import app
from ablations.config import UsageError
from ablations.config.declare import Options, read_options

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (README, *DOCS)}
ALL = {name: (ROOT / name).read_text() for name in (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md")}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SUMMARY = {
    "Digits": "norm_digits",
    "20 classes of Tiny-ImageNet": "norm_tiny_imagenet",
    "CIFAR-10": "tuned_cifar10",
    "Shapes": "shapes",
}


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text)


def words(line: str) -> list[str]:
    """Split a command line as a shell does, in the first of two array jobs, without its comment."""
    array = {"$SLURM_ARRAY_TASK_ID": "1", "$SLURM_ARRAY_TASK_COUNT": "2"}
    return shlex.split(re.sub(r"\$SLURM_\w+", lambda name: array[name[0]], line), comments=True)


def command_lines() -> list[tuple[str, str]]:
    """Return page and arguments of every ``python -m ablations`` in code blocks and in the text."""
    found = []
    for name, text in PAGES.items():
        shell = "\n".join(block for language, block in FENCE.findall(text) if not language)
        lines = shell.replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`]+)`", " ".join(prose(text).split()))
        start = "python -m ablations "
        found += [(name, line.strip().removeprefix(start)) for line in lines if line.strip().startswith(start)]
    return [(name, line) for name, line in dict.fromkeys(found) if not line.startswith(("COMMAND", "--version"))]


COMMANDS = command_lines()
IDS = [f"{Path(name).stem}: {' '.join(words(line))}" for name, line in COMMANDS]


MODELS = {
    name.rstrip("_"): typing.get_type_hints(function)["options"]
    for module in (run, foresee, look, clean, bench, bench_gpu, bench_scale, bench_start)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if list(inspect.signature(function).parameters) == ["options"] and function.__module__ == module.__name__
}
"""The options of each command."""


def parsed(line: str) -> Options:
    """Read a command line as the command does, without running it."""
    command, context, arguments = typer.main.get_command(app), None, words(line)
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, parent=context)
        _, command, arguments = command.resolve_command(context, arguments)
    given = command.make_context(command.name, list(arguments), parent=context).params
    return read_options(
        MODELS[command.name], {name: value for name, value in given.items() if value not in (None, [], ())}
    )


def slug(heading: str) -> str:
    """Return the anchor that a heading has on the web."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)}


def test_the_readme_has_at_most_150_lines():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_the_readme_lists_every_page():
    listed = re.findall(r"^- \[(docs/[^]]+)\]\((docs/[^)]+)\): \S", PAGES["README.md"], re.MULTILINE)
    assert all(shown == target for shown, target in listed)
    assert sorted(target for _, target in listed) == sorted(PAGES.keys() - {"README.md"})


@pytest.mark.parametrize("name", ALL)
def test_every_link_and_image_leads_somewhere(name):
    for link in re.findall(r"\]\(([^)]+)\)", prose(ALL[name])):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), link


@pytest.mark.parametrize("name", PAGES)
def test_every_named_file_exists(name):
    for file in re.findall(r"`((?:ablations|docs|notebooks|results|tests|ufo)/[^` ]*)`", PAGES[name]):
        assert (ROOT / file).exists(), file


def test_there_are_commands():
    assert len(COMMANDS) > 50
    assert {name for name, _ in COMMANDS} > {"README.md", "docs/commands.md", "docs/speed.md", "docs/running.md"}


@pytest.mark.parametrize("line", [line for _, line in COMMANDS], ids=IDS)
def test_a_command_line_parses(line):
    assert parsed(line)


WRONG = ("run --nrom xnorm", "run xnorm", "rnu", "power a --delta x", "bench speed", "run --trainer x")


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_does_not_parse(line):
    with pytest.raises(Exception) as raised:
        parsed(line)
    assert isinstance(raised.value, UsageError) or hasattr(raised.value, "format_message")


def needs_no_files(line: str) -> bool:
    """Whether a command line plans a study on data that is drawn or comes with scikit-learn."""
    own = ("DIR", "--experiment t", "--experiment norm_c", "--experiment norm_t", "my_module", "runs/", "cifar10")
    return line.startswith(("run ", "tune ")) and not any(part in line for part in own)


PLANNED = list(dict.fromkeys(" ".join(words(line)) for _, line in COMMANDS if needs_no_files(line)))


@pytest.mark.slow
@pytest.mark.parametrize("line", PLANNED)
def test_a_command_line_can_be_planned(line, cli, tmp_path):
    dry = () if "--dry-run" in line else ("--dry-run",)
    code, out, err = cli(*words(line), *dry, "--out", tmp_path)
    assert code == 0, out + err


def options(command: Any) -> set[str]:
    own = {option for parameter in command.params for option in parameter.opts}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("name", PAGES)
def test_every_named_option_exists(name):
    text = re.sub(r"^(#SBATCH|srun ray ).*$", "", PAGES[name], flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert named <= options(typer.main.get_command(app)) | {"--help"}


def test_every_named_field_experiment_and_normaliser_exists(cli):
    text = "\n".join(PAGES.values())
    for what, pattern in (("fields", r"--set (\w+)="), ("experiments", r"--experiment (\w+)")):
        rows = json.loads(cli("list", what, "--json")[1])
        known = {next(iter(row.values())) for row in rows}
        assert set(re.findall(pattern, text)) <= known, what
    named = {name for names in re.findall(r"--norm ([\w,]+)", text) for name in names.split(",")}
    assert named - {"mine"} <= {row["name"] for row in json.loads(cli("list", "norms", "--json")[1])}


def test_every_generated_table_is_the_commands(cli):
    """All but the measured one, which `test_arms.py` compares with its page."""
    marked = [
        part for text in PAGES.values() for part in re.findall(r"<!-- (.*?) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    ]
    assert marked
    for command, table in marked:
        if command == "python -m ablations bench start --markdown":
            continue
        code, out, _ = cli(*words(command.removeprefix("python -m ablations ")))
        assert code == 0
        assert out.split("\n\n")[0].strip() == table.strip()


@pytest.mark.parametrize("study", SUMMARY)
def test_the_readmes_results_are_the_studies(study):
    row = next(line for line in PAGES["README.md"].splitlines() if line.startswith(f"| [{study}]"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    table = pd.read_csv(ROOT / "results" / SUMMARY[study] / "tables" / "main.csv").set_index("arm")
    assert (table[["num_diverged", "num_failed", "num_stale"]] == 0).all(axis=None)
    assert cells[0] == ("mask AP, %" if study == "Shapes" else "test accuracy, %")
    expected = [str(table.loc["xnorm", "n"]), f"{table.loc['xnorm', 'mean_pct']:.2f}"]
    for arm in ("l2", "single_l2", "layernorm", "softmax"):
        mark = "**" if arm in table.index and table.loc[arm, "supported"] else ""
        expected.append(f"{mark}{table.loc[arm, 'difference_pct']:+.2f}{mark}" if arm in table.index else "")
    assert cells[1:] == expected


def test_the_readme_cites_as_the_citation_file():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    fields = dict(re.findall(r"^  (\w+) += \{+(.*?)\}+,?$", PAGES["README.md"], re.MULTILINE))
    author = cited["authors"][0]["name"]
    year = str(cited["date-released"])[:4]
    assert fields == {"title": cited["title"], "author": author, "version": cited["version"], "year": year}
