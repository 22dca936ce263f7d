"""The command for a GPU: parts, limits and files, with small commands as parts, and once its whole small form."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import ROOT
from studies import make_study
from test_pages import parsed

from ablations.bench.gpu import archive
from ablations.bench.gpu.choice import choose_fields
from ablations.bench.gpu.data import data_folder, unpack
from ablations.bench.gpu.page import attention_lines, grid_lines, lines_of_tests, model_lines, study_lines
from ablations.bench.gpu.parts import GpuBench, Part
from ablations.bench.gpu.run import run_bench
from ablations.bench.grid import GridBench, GridRow, bench_grid
from ablations.bench.kernels import time_steps
from ablations.config import UsageError
from ablations.data import find_source

CPU = torch.device("cpu")
MOST_FILES = 8


def part(work: Path, name: str, code: str, **fields: Any) -> Part:
    chosen = {"limit_s": 20, "least_s": 1, "grace_s": 1, "made": work / f"{name}.csv", "result": f"{name}.csv"}
    return Part(name=name, command=[sys.executable, "-c", code], **chosen | fields)


@dataclass(frozen=True, kw_only=True)
class Scripts(GpuBench):
    """Parts that are a few lines of Python."""

    made: tuple[Part, ...]

    def parts(self) -> list[Part]:
        return list(self.made)


def scripts(folder: Path, *parts: Part, seconds: float = 60) -> Scripts:
    return Scripts(out=folder / "gpu", work=folder / "work", device=CPU, seconds=seconds, made=parts)


def states(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "parts.json").read_text())["parts"]


def writes(file: Path, text: str) -> str:
    return f"open({str(file)!r}, 'w').write({text!r})"


@pytest.mark.process
def test_a_part_that_hangs_or_fails_costs_only_itself(tmp_path):
    work, pids = tmp_path / "work", tmp_path / "pids"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    hangs = (
        f"import subprocess, sys; one = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"{writes(work / 'hangs.csv', 'x,model')}; open({str(pids)!r}, 'w').write(str(one.pid)); one.wait()"
    )
    bench = scripts(
        tmp_path,
        part(work, "hangs", hangs, limit_s=1.5),
        part(work, "fails", "print('so far'); raise SystemExit('it is broken')"),
        part(work, "lacks", "", missing="no such thing"),
        part(work, "works", writes(work / "works.csv", "a\n1\n")),
        part(work, "waits", "", least_s=1000),
    )
    lines: list[str] = []
    assert not run_bench(bench, on_line=lines.append)
    found = {name: (state["state"], state["detail"]) for name, state in states(bench.out).items()}
    assert found["hangs"] == ("stopped", "stopped after 2 s")
    assert found["fails"] == ("failed", "exit code 1: it is broken")
    assert states(bench.out)["fails"]["tail"] == ["so far", "it is broken"]
    assert found["lacks"] == ("skipped", "no such thing")
    assert found["works"] == ("ok", "")
    assert found["waits"][0] == "skipped"
    assert "it needs 1000" in found["waits"][1]
    assert pd.read_csv(bench.out / "works.csv").to_dict("list") == {"a": [1], "part": ["works"]}
    deadline = time.monotonic() + 5
    while read(Path("/proc") / pids.read_text() / "cmdline") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not read(Path("/proc") / pids.read_text() / "cmdline"), "what a stopped part has started still runs"
    assert "it is broken" in (bench.out / "gpu.md").read_text()


@pytest.mark.process
def test_another_call_keeps_what_has_passed_and_runs_the_rest(tmp_path):
    work, count = tmp_path / "work", tmp_path / "count"
    counts = f"open({str(count)!r}, 'a').write('once '); " + writes(work / "a.csv", "x\n1\n")
    first = scripts(tmp_path, part(work, "a", counts), part(work, "b", "raise SystemExit(1)"))
    assert not run_bench(first, on_line=lambda line: None)
    mended = part(work, "b", writes(work / "b.csv", "x\n2\n"), result="a.csv")  # two parts share a file
    lines: list[str] = []
    assert run_bench(scripts(tmp_path, first.made[0], mended), on_line=lines.append)
    assert "a: kept" in lines[0]
    assert count.read_text() == "once "
    assert pd.read_csv(first.out / "a.csv").to_dict("list") == {"x": [1, 2], "part": ["a", "b"]}


@pytest.mark.process
def test_rows_of_an_earlier_call_are_kept_if_it_measured_more(tmp_path):
    work = tmp_path / "work"
    for text, kept in (("x\n1\n2\n", [1, 2]), ("x\n3\n", [1, 2]), ("x\n4\n5\n6\n", [4, 5, 6])):
        bench = scripts(tmp_path, part(work, "a", writes(work / "a.csv", text) + "; raise SystemExit(1)"))
        assert not run_bench(bench, on_line=lambda line: None)
        assert pd.read_csv(bench.out / "a.csv")["x"].tolist() == kept


@pytest.mark.process
def test_what_has_failed_runs_again_after_all_others(tmp_path):
    work, lines = tmp_path / "work", list[str]()
    for fails in ("raise SystemExit(1)", ""):
        bench = scripts(
            tmp_path,
            part(work, "a", fails, result=""),
            part(work, "b", "raise SystemExit(1)", least_s=999 * bool(fails)),
        )
        run_bench(bench, on_line=lines.append)
    assert [line for line in lines if "at most" in line] == ["a: at most 20 s", "b: at most 20 s", "a: at most 20 s"]


def test_the_studys_cells_are_computed_as_it_has_them_or_as_the_grid_found_fastest(tmp_path):
    study, grid = tmp_path / "study", tmp_path / "grid.csv"
    assert choose_fields(study, grid) == ()
    rows = [GridRow("eager", 8, "cells_per_hour", 60.0), GridRow("stacked_graph", 8, "cells_per_hour", 90.0)]
    rows += [GridRow("graph", 1, "wall_s", 999.0), GridRow("compiled", 8, "cells_per_hour", 99.0)]
    pd.DataFrame(rows).to_csv(grid, index=False)
    assert choose_fields(study, grid) == ("stack=8", "cuda_graph=on")
    assert choose_fields(make_study(tmp_path / "a", seeds=1), grid) == ("stack=1", "cuda_graph=off")


@pytest.mark.process
def test_parts_without_a_file_of_results_run_again_where_their_folder_is_missing(tmp_path):
    made = tmp_path / "work" / "data"
    bench = scripts(tmp_path, part(tmp_path, "data", f"import os; os.mkdir({str(made)!r}); print('10 images')"))
    data = Part(**{**vars(bench.made[0]), "made": made, "result": ""})
    lines: list[str] = []
    for _ in range(2):
        assert run_bench(scripts(tmp_path, data), on_line=lines.append)
    made.rmdir()
    assert run_bench(scripts(tmp_path, data), on_line=lines.append)
    assert lines == [
        "data: at most 20 s",
        "data: ok: 10 images",
        "data: kept",
        "data: at most 20 s",
        "data: ok: 10 images",
    ]
    assert states(bench.out)["data"]["detail"] == "10 images"


def test_the_archive_of_a_study_has_its_finished_cells_and_no_checkpoints(tmp_path, monkeypatch):
    study = make_study(tmp_path / "a", seeds=1)
    cell = next((study / "cells").iterdir())
    (cell / "checkpoint.ckpt").touch()
    (study / "cells" / ".begun").mkdir()
    (study / "figures").mkdir(exist_ok=True)
    file = tmp_path / "study.tar.xz"
    assert archive.pack(study, file) == ""
    with tarfile.open(file) as opened:
        names = opened.getnames()
    assert f"{study.name}/cells/{cell.name}/outcome.json" in names
    assert not [name for name in names if name.endswith(".ckpt") or "/." in name or "figures" in name]
    (tmp_path / "b").mkdir()
    archive.unpack(file, tmp_path / "b" / study.name)
    assert (tmp_path / "b" / study.name / "study.yaml").read_bytes() == (study / "study.yaml").read_bytes()
    before = file.read_bytes()
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    assert "is not renewed" in archive.pack(study, file)
    assert file.read_bytes() == before


def test_an_archive_of_images_is_the_data_set_that_its_folder_is(images, tmp_path):
    file, work = tmp_path / "images.tar.xz", tmp_path / "work"
    with tarfile.open(file, "w:xz") as opened:
        opened.add(images, arcname="any")
    folder = data_folder(file, work)
    unpack(file, folder)
    unpack(file, folder)  # it is there
    found = [
        find_source(f"imagefolder:{place}", data_root=work, download=False, image_size=None)
        for place in (images, folder)
    ]
    assert (found[1].name, found[1].fingerprint) == (found[0].name, found[0].fingerprint)
    with tarfile.open(tmp_path / "two.tar", "w") as opened:
        for name in "ab":
            opened.add(images, arcname=name)
    with pytest.raises(ValueError, match="one folder"):
        unpack(tmp_path / "two.tar", work / "two")


@pytest.mark.parametrize("damage", ["cut short", "empty", "a byte changed", "missing"])
def test_a_damaged_archive_of_images_is_one_line_and_nothing_is_left(damage, images, tmp_path):
    file, folder = tmp_path / "images.tar.xz", tmp_path / "work" / "images"
    with tarfile.open(file, "w:xz") as opened:
        opened.add(images, arcname="any")
    data = file.read_bytes()
    middle = len(data) // 2
    changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    file.write_bytes({"cut short": data[:middle], "empty": b"", "a byte changed": changed, "missing": b""}[damage])
    if damage == "missing":
        file.unlink()
    folder.parent.mkdir()
    with pytest.raises(UsageError, match=rf"^{file} cannot be unpacked: [^\n]+; copy or download it again$"):
        unpack(file, folder)
    assert list(folder.parent.iterdir()) == []


def test_the_parts_name_what_they_lack_and_end_within_the_time(tmp_path):
    bench = GpuBench(out=tmp_path, work=tmp_path / "w", device=torch.device("cuda", 0), seconds=480)
    parts = {part.name: part for part in bench.parts()}
    assert list(parts) == ["tests", "data", "grid", "model", "attention", "compiled", "study"]
    assert {name for name, part in parts.items() if part.missing == "no --data-file"} == {"data", "grid", "study"}
    assert len({part.result for part in parts.values()} - {""} | {"gpu.md", "parts.json", "study.tar.xz"}) <= MOST_FILES
    assert all(part.least_s <= part.limit_s for part in parts.values())
    given = GpuBench(**{**vars(bench), "data_file": tmp_path / "cifar10.tar.xz", "fields": ("cuda_graph=on",)})
    assert f"no file {tmp_path}" in {part.name: part for part in given.parts()}["data"].missing
    for each in given.parts():
        words = [str(word) for word in each.command]
        if words[2] == "ablations":
            assert parsed(shlex.join(words[3:]))
    study = [str(word) for word in given.parts()[-1].command]
    assert f"imagefolder:{tmp_path / 'w' / 'data' / 'cifar10'}" in study
    assert study[study.index("--set") + 1] == "cuda_graph=on"


def test_the_tables_of_the_page_are_those_computed_by_hand():
    nets = [("ours", "224", 100, what, 1, value, "model") for what, value in (("inference_s", 0.5), ("training_s", 2))]
    nets += [("ours", "224", 100, "training_peak_bytes", 0, 3 * 2**20, "model")]
    columns = ["model", "px", "images", "quantity", "round", "value", "part"]
    assert model_lines(pd.DataFrame(nets, columns=columns))[2] == "| 224 | 100 | ours | eager | 200 | 50 |  | 3 |"
    calls = [("xnorm", 1000, 2, "time_s", number, value) for number, value in ((1, 1e-6), (2, 3e-6))]
    attention = pd.DataFrame(calls, columns=["norm", "tokens", "images", "quantity", "round", "value"])
    assert attention_lines(attention)[-1] == "| xnorm | 1 |"
    grid = [GridRow("eager", 2, "cells_per_hour", 60.0), GridRow("eager", 2, "cells_per_hour_running", 90.0)]
    grid += [GridRow("eager", 2, "epoch_s", 1.5), GridRow("graph", 1, "refused", float("nan"), "no GPU")]
    grid += [GridRow("eager", 1, "wall_s", 0.006), GridRow("eager", 1, "kernel_s", 0.002)]
    lines = grid_lines(pd.DataFrame(grid))
    assert "| eager | 2 | 60 | 90 | 1.5 |" in lines
    assert "- graph, 1 at once: refused: no GPU" in lines
    assert lines[-1] == "| eager | 6 | 2 | 3 |"
    cells = pd.DataFrame({"arm_label": "XNorm", "outcome": ["ok", "ok", "failed"], "seconds": [1.0, 2.0, 3.0]})
    cells["test_accuracy_pct"] = [50.0, 52.0, float("nan")]
    assert study_lines(cells)[2] == "| XNorm | 2 | 0 | 1 | 51 | 1.4 | 2 |"
    tests = [("a", "passed", 1.0, ""), ("b", "failed", 2.0, "off by 1 | 2")]
    found = lines_of_tests(
        {"tests": [dict(zip(("name", "outcome", "seconds", "detail"), test, strict=True)) for test in tests]}
    )
    assert found[0] == "1 passed, 1 failed; 3 s in all."
    assert found[-1] == "| b | failed | off by 1 / 2 |"


def test_a_step_is_timed_within_a_training(tmp_path, cache):
    bench = GridBench(data="digits", model=None, cells=[1], ways=["eager"], epochs=2, images=640, device=CPU)
    plan = bench.plan("eager", 1, tmp_path)
    (cell,) = plan.cells
    info = plan.infos[cell.images.data_fingerprint]
    times = time_steps(cell, info, device=CPU, warm_up=2, timed=4, profiled=2)
    assert 0 < times.wall_s < 1
    assert times.kernel_s != times.kernel_s  # there is no GPU whose kernels could be timed
    with pytest.raises(ValueError, match="take more images"):
        time_steps(cell, info, device=CPU, warm_up=2, timed=40, profiled=2)


@pytest.mark.slow
@pytest.mark.process
def test_a_grid_is_measured_and_a_way_that_is_refused_is_named(cache, monkeypatch):
    monkeypatch.setattr("ablations.bench.grid.WAYS", {"eager": lambda _: {}, "graph": lambda _: {"jobs": [True]}})
    bench = GridBench(data="digits", model=None, cells=[1, 2], ways=["eager", "graph"], epochs=2, images=64, device=CPU)
    assert bench.numbers("stacked") == [2]
    rows: list[GridRow] = []
    assert bench_grid(bench, on_row=rows.append) == rows
    values = {(row.way, row.cells, row.quantity): row.value for row in rows if not row.note}
    assert {key[:2] for key in values} == {("eager", 1), ("eager", 2)}
    for cells in (1, 2):
        running = 3600 * cells / (2 * values["eager", cells, "epoch_s"])
        assert values["eager", cells, "cells_per_hour_running"] == pytest.approx(running)
        assert 0 < values["eager", cells, "cells_per_hour"] < running
    assert {(row.way, row.quantity) for row in rows if row.note} == {("graph", "refused")}


NO_LIMITS = ["--minutes=60", *(f"--limit={name}=600" for name in ("tests", "grid", "model", "attention"))]
"""Options under which a busy machine stops no part."""


@pytest.fixture(scope="module")
def small_form(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    out = tmp_path_factory.mktemp("gpu") / "out"
    return out, call(out, *NO_LIMITS, "--limit=model=0.1")


def call(out: Path, *options: object) -> int:
    line = [sys.executable, "-m", "ablations", "bench", "gpu", "--device", "cpu", "--out", str(out), *map(str, options)]
    return subprocess.run(line, cwd=ROOT, check=False, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.process
def test_the_small_form_has_every_part_and_a_second_call_keeps_them(small_form):
    out, code = small_form
    found = {name: state["state"] for name, state in states(out).items()}
    expected = {"tests": "ok", "model": "stopped", "attention": "ok", "data": "skipped", "grid": "ok", "study": "ok"}
    assert found == expected, states(out)
    assert code == 1
    assert states(out)["data"]["detail"] == "no --data-file"
    assert len(list(out.iterdir())) <= MOST_FILES
    outcomes = {test["outcome"] for test in json.loads((out / "tests.json").read_text())["tests"]}
    assert outcomes == {"passed", "skipped"}
    assert pd.read_csv(out / "study.csv")["outcome"].eq("ok").sum() == 4
    kept = (out / "grid.csv").stat().st_mtime_ns
    assert call(out, *NO_LIMITS) == 1
    assert {name: state["state"] for name, state in states(out).items()} == expected | {"model": "ok"}
    assert (out / "grid.csv").stat().st_mtime_ns == kept
    assert "| 32 | 4 | ufo_vit_pico | eager |" in (out / "gpu.md").read_text()


@pytest.mark.process
def test_a_command_that_is_stopped_leaves_its_files_and_no_process(tmp_path):
    line = [sys.executable, "-m", "ablations", "bench", "gpu", "--device", "cpu", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*line, "--parts", "tests"], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "gpu.md").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert states(tmp_path / "out")["tests"]["state"] == "interrupted"
    mine = str(tmp_path / "out-work").encode()
    running = [pid for pid in os.listdir("/proc") if pid.isdigit() and mine in read(Path("/proc") / pid / "cmdline")]  # noqa: PTH208
    assert running == []


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended
        return b""


def test_wrong_names_are_one_line(cli, tmp_path):
    for option, value in (("--parts", "tset"), ("--limit", "tset=1"), ("--limit", "tests"), ("--set", "norn=l2")):
        code, _, err = cli("bench", "gpu", "--device", "cpu", "--out", tmp_path / "out", option, value)
        assert (code, err.count("\n")) == (2, 1), err
    assert cli("bench", "grid", "--ways", "fast")[0] == 2
    assert not (tmp_path / "out").exists()


def test_no_file_of_others_in_the_output_folder_is_removed(tmp_path):
    out = tmp_path / "gpu"
    out.mkdir()
    for name in (".gitignore", ".parts.json.1a2b"):
        (out / name).touch()
    (out / ".git").mkdir()
    run_bench(scripts(tmp_path), on_line=lambda line: None)
    assert sorted(path.name for path in out.iterdir()) == [".git", ".gitignore"]


def test_what_cannot_be_read_or_written_is_one_line(cli, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / "parts.json").write_text("{")
    for folder, part in ((tmp_path / "file" / "out", "Not a directory"), (out, "parts.json cannot be read")):
        code, _, err = cli("bench", "gpu", "--device", "cpu", "--out", folder)
        assert (code, err.count("\n")) == (2, 1), err
        assert part in err
    (out / "study.tar.xz").write_bytes(b"no archive")
    code, _, err = cli("bench", "gpu", "--device", "cpu", "--out", out)
    assert (code, err.count("\n")) == (2, 1), err
