"""Tuning: the same points for every arm, chosen on validation, confirmed on fresh seeds, and lost by nothing."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import run_here, start
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from studies import make_study, make_tuned

import ablations
from ablations.api import read_results
from ablations.config import UsageError
from ablations.config.experiment import load_experiment
from ablations.config.growth import extend
from ablations.config.request import Request
from ablations.config.search import FIRST_TRIAL_SEED, Range, parse_search
from ablations.data import find_source, prepare
from ablations.data.location import cache_root
from ablations.report.again import command
from ablations.store import Store
from ablations.tuning.mirror import JOURNAL, OptunaStudies
from ablations.tuning.propose import Ended, propose
from ablations.tuning.trials import confirmation

SEARCH = "lr=1e-3..1e-1:log,weight_decay=0.01..0.2:log"
SMALL = ("--smoke", "--set", "train_limit=128", "--set", "depth=1", "--set", "class_attention=0")
NAME = "norm-digits-tuned-smoke"
ARMS = ("--norm", "xnorm,l2", "--search", SEARCH, "--jobs", 2)


def folders(study: Path) -> list[str]:
    return sorted(path.name for path in (study / "cells").glob("[!.]*"))


def configs(study: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((study / "cells").glob("[!.]*/config.json"))]


def optuna_studies(tuning: Path) -> dict[str, optuna.Study]:
    storage = JournalStorage(JournalFileBackend(str(tuning / JOURNAL)))
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    return {name.split(": ")[1]: optuna.load_study(study_name=name, storage=storage) for name in names}


def described(tuning: Path) -> dict[str, list[tuple]]:
    """Return everything that Optuna knows of each trial."""
    return {
        arm: [(t.number, t.state.name, t.value, t.params, t.user_attrs, t.constraints) for t in study.trials]
        for arm, study in optuna_studies(tuning).items()
    }


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Tune two arms by 4 trials each and confirm on 2 seeds; return the study and what was printed."""
    out = tmp_path_factory.mktemp("tuned")
    code, printed, error = run_here("tune", *ARMS, *SMALL, "--trials", 4, "--confirm", 2, "--out", out)
    assert code == 0, error
    return out / NAME, printed


@pytest.mark.process
def test_it_leaves_the_trials_and_the_winners(run_once):
    study, printed = run_once
    assert len(folders(study / "tuning")) == 8
    assert len(folders(study)) == 4
    assert "4 trials of every arm in lr=0.001..0.1:log,weight_decay=0.01..0.2:log" in printed


@pytest.mark.process
def test_every_arm_is_tried_at_the_same_points(run_once):
    study, _ = run_once
    points = {arm: set() for arm in ("xnorm", "l2")}
    for config in configs(study / "tuning"):
        points[config["norm"]].add((config["seed"], config["lr"], config["weight_decay"]))
    assert points["xnorm"] == points["l2"]
    assert len(points["xnorm"]) == 4
    drawn = parse_search(SEARCH).points(4)
    assert sorted(lr for _, lr, _ in points["l2"]) == sorted(point["lr"] for point in drawn)


@pytest.mark.process
def test_no_seed_is_both_a_trials_and_a_replicates(run_once):
    study, _ = run_once
    trials = {config["seed"] for config in configs(study / "tuning")}
    replicates = {config["seed"] for config in configs(study)}
    assert trials == {10_000, 10_001, 10_002, 10_003}
    assert replicates == {0, 1}


@pytest.mark.process
def test_each_arm_carries_the_values_of_its_best_trial(run_once):
    study, _ = run_once
    results = ablations.load(study)
    for arm in ("xnorm", "l2"):
        own = results.trials[results.trials["arm"] == arm]
        best = own.loc[own["score_pct"].idxmax()]
        confirmed = results.cells[results.cells["arm"] == arm]
        assert set(confirmed["lr"]) == {best["lr"]}
        assert set(confirmed["weight_decay"]) == {best["weight_decay"]}
    assert (results.trials["score_pct"] == results.trials["val_accuracy_pct"]).all()


@pytest.mark.process
def test_the_winners_alone_have_been_tested(run_once):
    study, _ = run_once
    for outcome in (study / "tuning" / "cells").glob("[!.]*/outcome.json"):
        assert json.loads(outcome.read_text())["test_accuracy_pct"] is None
        assert not (outcome.parent / "correct.npy").exists()
    assert all((folder / "correct.npy").exists() for folder in (study / "cells").glob("[!.]*"))


@pytest.mark.slow
def test_trials_run_where_the_test_split_is_not_there_and_winners_have_it_made_again(tmp_path, monkeypatch):
    prepare(find_source("digits", data_root=tmp_path, download=False, image_size=None))  # decodes the data
    cache = tmp_path / "cache"
    shutil.copytree(cache_root(), cache, ignore=shutil.ignore_patterns("test_*"))
    monkeypatch.setenv("ABLATIONS_CACHE", str(cache))
    study = tmp_path / NAME
    for confirmed, folder in ((0, study / "tuning"), (1, study)):
        process = start(*ARMS, *SMALL, "--trials", 2, "--confirm", confirmed, out=tmp_path, command="tune")
        process.communicate(timeout=300)
        outcomes = [json.loads(path.read_text()) for path in (folder / "cells").glob("[!.]*/outcome.json")]
        assert {outcome["outcome"] for outcome in outcomes} == {"ok"}
        assert bool(list(cache.glob("*/test_*"))) == bool(confirmed)


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(run_once, cli):
    study, _ = run_once
    code, out, err = cli("tune", *ARMS, *SMALL, "--trials", 4, "--confirm", 2, "--out", study.parent)
    assert code == 0, err
    assert out.count("all 8 cells are done") == 1
    assert out.count("all 4 cells are done") == 1


@pytest.mark.slow
def test_more_trials_keep_those_that_there_are(run_once, cli, tmp_path):
    study, _ = run_once
    shutil.copytree(study / "tuning", tmp_path / NAME / "tuning")
    before = folders(study / "tuning")
    code, out, err = cli("tune", *ARMS, *SMALL, "--trials", 5, "--out", tmp_path)
    assert code == 0, err
    assert "5 is not a power of two" in out
    after = folders(tmp_path / NAME / "tuning")
    assert set(before) < set(after)
    assert len(after) == 10


@pytest.mark.process
def test_the_status_and_the_cells_of_trials_can_be_looked_at(run_once, cli):
    study, _ = run_once
    code, out, _ = cli("status", study / "tuning")
    assert (code, "8 of 8 trials done" in out) == (0, True)
    assert re.search(r"^trial +0 +1 +2 +3 *$", out, re.MULTILINE)
    name = folders(study / "tuning")[0]
    code, out, _ = cli("show", name, "--out", study.parent)
    assert (code, name in out) == (0, True)
    assert f"{NAME}/tuning" in cli("list", "studies", "--out", study.parent)[1]


@pytest.mark.slow
def test_the_report_has_the_trials_beside_the_winners(run_once, cli):
    study, _ = run_once
    code, out, err = cli("report", study)
    assert code == 0, err
    assert "each arm has its own tuned values: xnorm lr" in out
    page = (study / "report.html").read_text()
    assert '<h2 id="tuning">' in page
    assert "python -m ablations tune" in page
    assert {path.name for path in (study / "figures").glob("tuning*.png")} == {
        "tuning_sensitivity-lr.png",
        "tuning_sensitivity-weight_decay.png",
        "tuning_isolation.png",
        "tuning_best_of_k.png",
    }
    assert (study / "tables" / "tuning.md").exists()
    assert (study / "trials.csv").exists()


@pytest.mark.slow
def test_the_command_of_a_report_runs_the_same_trials_and_winners(run_once, cli):
    study, _ = run_once
    for folder in (study, study / "tuning"):
        again = command(Store(folder).read_study(), folder, num_trials=4).replace("\\\n", " ").split()[3:]
        code, out, err = cli(*again, "--dry-run")
        assert code == 0, err
        assert "8 trials: 8 done; 0 to run" in out
    assert "--confirm 0-1" in command(Store(study).read_study(), study, num_trials=4)


@pytest.mark.process
def test_a_report_of_the_trials_alone_has_their_table(tmp_path, cli):
    tuning = make_tuned(tmp_path, confirmed=False, stories={("l2", k): "nan" for k in range(8)})
    code, out, _ = cli("report", tuning)
    assert code == 0
    assert "every trial of l2 diverged" in out
    assert "test %" not in out
    page = (tuning / "report.html").read_text()
    assert '<h2 id="main">Trials</h2>' in page
    assert not (tuning / "tables" / "main.md").exists()
    code, _, err = cli("power", tuning)
    assert (code, "trials are not replicates" in err) == (2, True)


# Optuna


@pytest.mark.process
def test_optuna_has_a_trial_for_each_point_in_the_order_of_the_points(run_once):
    study, _ = run_once
    drawn = parse_search(SEARCH).points(4)
    for arm, own in optuna_studies(study / "tuning").items():
        assert [trial.params for trial in own.trials] == drawn
        assert [trial.state for trial in own.trials] == [TrialState.COMPLETE] * 4
        ended = ablations.load(study).trials
        best = ended.loc[ended["arm"] == arm, "score_pct"].max()
        assert own.best_value == best


@pytest.mark.process
def test_the_journal_made_again_has_the_same_trials(run_once, cli, tmp_path):
    study, _ = run_once
    copy = tmp_path / NAME / "tuning"
    shutil.copytree(study / "tuning", copy)
    before = described(copy)
    (copy / JOURNAL).unlink()
    code, _, err = cli("tune", *ARMS, *SMALL, "--trials", 4, "--out", tmp_path)
    assert code == 0, err
    assert described(copy) == before


@pytest.mark.parametrize("damage", [b"", b"no json\n", b'{"op_code": 0'])
def test_a_damaged_journal_is_made_anew(tmp_path, damage):
    tuning = make_tuned(tmp_path, confirmed=False)
    synced(tuning)
    before = described(tuning)
    whole = (tuning / JOURNAL).read_bytes()
    (tuning / JOURNAL).write_bytes(whole[: len(whole) // 2] + damage + b"\n" + whole[len(whole) // 2 :])
    (said,) = synced(tuning)
    assert said.endswith("was damaged; it is rebuilt from the cells")
    assert described(tuning) == before


def test_a_journal_that_was_cut_short_is_made_anew(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False)
    synced(tuning)
    before, whole = described(tuning), (tuning / JOURNAL).read_bytes()
    (tuning / JOURNAL).write_bytes(whole[:-7])
    assert len(synced(tuning)) == 1
    assert described(tuning) == before


def synced(tuning: Path, url: str | None = None) -> list[str]:
    store = Store(tuning)
    return OptunaStudies(store.read_study(), [], store=store, url=url).sync()


def test_a_diverged_trial_is_a_result_and_infeasible_and_a_failed_one_is_none(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False, stories={("l2", 1): "nan", ("l2", 2): "stuck", ("l2", 3): "oom"})
    synced(tuning)
    trials = optuna_studies(tuning)["l2"].trials
    assert [trial.state.name for trial in trials[:4]] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert [trial.constraints.get("diverged") for trial in trials[:4]] == [0, 1, 1, None]
    assert trials[1].value == 10  # chance
    assert trials[2].value == 11  # as measured
    assert trials[1].user_attrs["kind"] == "nan"
    assert [trial.params for trial in trials] == [t.params for t in optuna_studies(tuning)["xnorm"].trials]


def test_a_trial_that_was_run_again_is_told_anew(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False, stories={("l2", 1): "oom"})
    synced(tuning)
    path = next((tuning / "cells").glob("l2-s10001-*/outcome.json"))
    mended = json.loads(path.read_text()) | {"outcome": "ok", "kind": "", "val_accuracy_pct": 50.0, "val_loss": 1.0}
    path.write_text(json.dumps(mended))
    assert synced(tuning) == ["Optuna's study 'tuning: l2' disagreed with the cells; it is rebuilt"]
    assert synced(tuning) == []
    assert optuna_studies(tuning)["l2"].trials[1].value == 50


def test_points_that_wait_are_enqueued(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False, missing=[("l2", FIRST_TRIAL_SEED + 5)])
    study = Store(tuning).read_study()
    store = Store(tuning)
    whole = make_tuned(tmp_path / "whole", confirmed=False)
    cells = [record.config for record in Store(whole).records().values()]
    OptunaStudies(study, cells, store=store, url=None).sync()
    states = [trial.state.name for trial in optuna_studies(tuning)["l2"].trials]
    assert states == ["COMPLETE"] * 5 + ["WAITING"] * 3  # in the order of the points


def test_a_database_keeps_the_studies(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False)
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    synced(tuning, url)
    shutil.rmtree(next((tuning / "cells").glob("l2-s10007-*")))
    assert len(synced(tuning, url)) == 1  # its own, though they do not agree
    assert not (tuning / JOURNAL).exists()
    study = optuna.load_study(study_name="tuning: xnorm", storage=url)
    assert len(study.trials) == 8


@pytest.mark.slow
def test_another_tunings_studies_in_a_database_are_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    synced(make_tuned(tmp_path / "one", confirmed=False), url)
    other = make_tuned(tmp_path / "other", confirmed=False, epochs=4)
    with pytest.raises(UsageError, match="of other trials: choose another name with --study"):
        synced(other, url)
    assert len(optuna.load_study(study_name="tuning: xnorm", storage=url).trials) == 8


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://here", "cannot be opened"),
        ("sqlite:////no/such/folder/x.db", "cannot be opened"),
        ("mysql://a/b", "needs MySQLdb, which is not installed: pip install 'mysqlclient'"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(cli, tmp_path, url, message):
    code, _, err = cli("tune", *ARMS, *SMALL, "--trials", 2, "--storage", url, "--out", tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert f"--storage {url} {message}" in err
    assert not list(tmp_path.rglob("study.yaml"))


def test_the_next_point_of_tpe_follows_from_the_results_alone():
    search = parse_search(SEARCH, sampler="tpe")
    ended = [
        Ended(values=point, outcome="ok", score_pct=90 - 1000 * abs(point["lr"] - 0.01)) for point in search.points(8)
    ]
    first, again = (propose(search, ended, number=8) for _ in range(2))
    assert first == again
    assert propose(search, ended, number=9) != first
    better = Ended(values=ended[-1].values, outcome="ok", score_pct=99.9)
    assert propose(search, [*ended[:-1], better], number=8) != first
    for each in search.ranges:
        assert each.low <= first[each.field] <= each.high


def test_tpe_keeps_away_from_where_trials_diverge():
    search = parse_search("lr=1e-4..1:log", sampler="tpe")
    points = search.points(16)
    ended = [
        Ended(values=p, outcome="diverged" if p["lr"] > 0.01 else "ok", score_pct=10.0 if p["lr"] > 0.01 else 80.0)
        for p in points
    ]
    proposed = [propose(search, ended, number=16 + k)["lr"] for k in range(20)]
    assert sum(lr <= 0.01 for lr in proposed) >= 18  # by chance it would be half of them


@pytest.mark.slow
def test_tpe_draws_points_of_its_own_for_each_arm_and_goes_on_to_the_same(tmp_path, cli):
    arguments = ("tune", *ARMS, *SMALL, "--sampler", "tpe", "--trials", 10)
    code, out, err = cli(*arguments, "--out", tmp_path / "at_once")
    assert code == 0, err
    assert "so that the arms' points differ" in out
    fields = {"train_limit": 128, "depth": 1, "class_attention": 0}
    asked = {"norm": ["xnorm", "l2"], "search": SEARCH, "sampler": "tpe", "fields": fields, "smoke": True}
    for trials in (9, 10):
        ablations.tune(**asked, trials=trials, out=tmp_path / "in_two")
    at_once, in_two = (Store(tmp_path / name / NAME / "tuning").read_study() for name in ("at_once", "in_two"))
    assert {point.key: point.values for point in at_once.points} == {p.key: p.values for p in in_two.points}
    results = ablations.load(tmp_path / "at_once" / NAME / "tuning")
    assert results.tuned["expected_half_pct"].isna().all()
    with pytest.raises(UsageError, match="no data for tuning_best_of_k"):
        results.plot.tuning_best_of_k()
    own = [point for point in at_once.points if point.arm is not None]
    assert len(own) == 4
    assert len(folders(tmp_path / "in_two" / NAME / "tuning")) == 20


# Losing nothing


@pytest.mark.slow
def test_a_tuning_that_is_killed_goes_on_without_repeating_or_skipping_a_point(tmp_path):
    """Killed among its trials and among its winners."""
    arguments = (*ARMS, *SMALL, "--trials", 4, "--confirm", 2)
    study = tmp_path / NAME
    for count in (3, 9):
        process = start(*arguments, out=tmp_path, command="tune", new_group=True)
        while number_ended(study) < count and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.communicate()
    seen = {path: path.stat().st_mtime_ns for path in outcomes(study)}
    code, _, error = run_here("tune", *arguments, "--out", tmp_path)
    assert code == 0, error
    assert len(folders(study / "tuning")) == 8
    assert len(folders(study)) == 4
    assert {path: path.stat().st_mtime_ns for path in seen} == seen
    assert [trial.state.name for trial in optuna_studies(study / "tuning")["l2"].trials] == ["COMPLETE"] * 4


def outcomes(study: Path) -> list[Path]:
    return [*study.glob("tuning/cells/[!.]*/outcome.json"), *study.glob("cells/[!.]*/outcome.json")]


def number_ended(study: Path) -> int:
    return len(outcomes(study))


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_an_arm_whose_every_trial_diverges_gets_the_same_points_and_is_confirmed(tmp_path):
    results = ablations.tune(
        norm=["xnorm", "is_nan"],
        plugins=["arms"],
        search=SEARCH,
        trials=2,
        confirm=1,
        epochs=1,
        fields={"train_limit": 128, "depth": 1, "warmup_epochs": 0, "class_attention": 0, "batch_size": 64},
        out=tmp_path,
    )
    by_arm = {arm: own.set_index("seed")["lr"].to_dict() for arm, own in results.trials.groupby("arm")}
    assert by_arm["xnorm"] == by_arm["is_nan"]
    table = results.tuned.set_index("arm")
    assert (table.loc["is_nan", "num_diverged"], table.loc["is_nan", "best_pct"]) == (2, 10)
    assert dict(zip(results.cells["arm"], results.cells["outcome"], strict=True))["is_nan"] == "diverged"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a tuning needs a search"),
        (("--search", "lr"), "--search lr: write FIELD=LOW..HIGH"),
        (("--search", "lr=1e-4..x"), "--search lr: 'x' is not a number"),
        (("--search", "lr=1..0.1"), "lr: 1..0.1 is empty"),
        (("--search", "weight_decay=0..0.1:log"), "a range on a log scale must start above 0"),
        (("--search", "norm=a..b"), "--search norm: it cannot be searched"),
        (("--search", "seed=1..5"), "--search seed: it cannot be searched"),
        (("--search", "rl=1..5"), "unknown field 'rl'"),
        (("--search", "lr=1e-4..1,lr=1e-4..2"), "lr is searched twice"),
        (("--search", SEARCH, "--lr", "1e-3"), "--search lr: it is given a value already"),
        (("--search", SEARCH, "--compare", "lr", "--lr", "1e-3,1e-2"), "--search lr: its values are the arms"),
        (
            ("--search", SEARCH, "--set", "lpi=on,off"),
            "a tuning has one condition, and cannot have several values of lpi: tune",
        ),
        (("--search", SEARCH, "--confirm", "9999-10001"), "seed 10000 is one of the trials'"),
        (("--search", SEARCH, "--stack", "2"), "--stack: the trials of a tuning differ in more than their seeds"),
        (("--search", SEARCH, "--confirm", "many"), "--confirm many: give how many"),
        (("--search", "depth=1..3", "--trials", "8"), "only 3 of 8 points are distinct"),
        (("--search", "depth=1..30", "--model", "timm:vit_tiny_patch16_224"), "does not apply to timm:"),
    ],
)
def test_what_does_not_fit_is_one_line(cli, tmp_path, arguments, message):
    norms = () if "timm" in str(arguments) else ("--norm", "xnorm" if "--compare" in arguments else "xnorm,l2")
    code, _, err = cli("tune", *norms, *arguments, "--out", tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.rglob("study.yaml"))


@pytest.mark.process
def test_another_search_is_another_question(run_once, cli):
    study, _ = run_once
    narrow = [*ARMS]
    narrow[narrow.index(SEARCH)] = "lr=1e-3..1e-2:log"
    code, _, err = cli("tune", *narrow, *SMALL, "--trials", 4, "--out", study.parent)
    assert code == 2
    assert "asks another question: its search is lr=0.001..0.1:log,weight_decay=0.01..0.2:log (sobol, seed 0)" in err


@pytest.mark.process
def test_the_winners_grow_by_seeds_and_not_by_arms_without_tuned_values(run_once, cli, tmp_path):
    study, _ = run_once
    shutil.copytree(study, tmp_path / study.name)
    small = ("--study", study.name.removesuffix("-smoke"), "--out", tmp_path, *SMALL, "--dry-run")
    code, out, err = cli("run", "--norm", "xnorm,l2", "--seeds", 3, *small)
    assert code == 0, err
    assert "6 cells: 4 done, 2 missing" in out
    code, _, err = cli("run", "--norm", "xnorm,softmax", "--seeds", 2, *small)
    assert (code, "softmax has no tuned values: tune it with the others" in err) == (2, True)
    code, _, err = cli("run", "--norm", "xnorm", "--seeds", "10000,", *small)
    assert (code, "replicates have seeds below 10,000" in err) == (2, True)


def test_a_winner_that_was_tested_is_replaced_by_no_other(tmp_path):
    stored = Store(make_tuned(tmp_path, name="tuned")).read_study()
    first, *others = stored.points
    changed = first.model_copy(update={"values": first.values | {"lr": 0.05}})
    asked = stored.model_copy(update={"points": (changed, *others)})
    with pytest.raises(UsageError, match=r"has tested an earlier winner of \w+, lr=0\.0") as error:
        extend(stored, asked, named={"norm", "seed"}, ref=None, num_results=12)
    assert "copy tuned/tuning into a new folder" in str(error.value)


def test_winners_are_not_confirmed_before_every_trial_has_an_outcome(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False, missing=[("l2", FIRST_TRIAL_SEED + 5)])
    with pytest.raises(UsageError, match="trials of tuning without an outcome: 1"):
        confirmation(Request(asked={}), Store(tuning), seeds=[0])


def test_failed_trials_are_said_where_winners_are_chosen(tmp_path):
    tuning = make_tuned(tmp_path, confirmed=False, stories={("l2", 0): "oom"})
    request, lines = confirmation(Request(asked={}), Store(tuning), seeds=[0])
    assert "failed trials: 1; so the arms did not have the same budget" in lines
    assert [point.arm for point in request.points] == ["xnorm", "l2", "single_l2"]
    lost = make_tuned(tmp_path / "lost", confirmed=False, stories={("l2", k): "oom" for k in range(8)})
    with pytest.raises(UsageError, match="every trial of l2 has failed"):
        confirmation(request, Store(lost), seeds=[0])


@pytest.mark.slow
def test_a_study_whose_trials_are_gone_or_unfinished_says_so(tmp_path, cli):
    study = make_tuned(tmp_path)
    shutil.rmtree(next((study / "tuning" / "cells").glob("l2-s10003-*")))
    code, out, _ = cli("report", study)
    assert (code, "tuning: trials without an outcome: 1" in out) == (1, True)
    shutil.rmtree(study / "tuning")
    code, out, _ = cli("report", study)
    assert (code, f"there is no {study / 'tuning'}" in out) == (1, True)
    assert "tuning_" not in (study / "report.html").read_text()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("plain", "is not a tuning"),
        ("search", "has another search than"),
        ("compare", "has another compare than"),
        ("broken", "study.yaml"),
    ],
)
def test_trials_that_are_not_of_the_study_cost_themselves_alone(tmp_path, other, reason):
    study = make_tuned(tmp_path, trials=2, seeds=2)
    shutil.rmtree(study / "tuning")
    if other == "plain":
        shutil.move(make_study(tmp_path, name="plain", seeds=2), study / "tuning")
    elif other == "broken":
        (study / "tuning").mkdir()
        (study / "tuning" / "study.yaml").write_text("name: [")
    else:
        search = parse_search("weight_decay=0.01..0.2:log" if other == "search" else SEARCH)
        options = {"compare": "depth", "norms": ["l2"], "depth": [1, 2]} if other == "compare" else {}
        shutil.move(
            make_tuned(tmp_path, name="b", trials=2, confirmed=False, search=search, **options), study / "tuning"
        )
    results = read_results([study])
    (said,) = results.problems
    assert str(study / "tuning") in said
    assert reason in said
    assert said.endswith(", so the trials are not reported")
    assert results.tuned.empty
    assert len(results.cells) == 6


@pytest.mark.parametrize("ref", [None, "l2"])
def test_trials_stand_beside_no_other_study(tmp_path, ref):
    tuned, other = make_tuned(tmp_path), make_study(tmp_path, name="other")
    with pytest.raises(UsageError, match="a tuning is reported by itself"):
        ablations.load(tuned / "tuning", other, ref=ref)


@pytest.mark.slow
def test_several_tuned_studies_are_strata(tmp_path):
    one, two = make_tuned(tmp_path, name="one"), make_tuned(tmp_path, name="two", epochs=2)
    results = ablations.load(one, two)
    assert set(results.tuned["condition"]) == {"study=one", "study=two"}
    assert len(results.tuned) == 6


def test_an_experiment_file_holds_a_tuning(tmp_path, cli):
    path = tmp_path / "tuned.yaml"
    content = {"norm": ["xnorm", "l2"], "search": {"lr": "1e-3..1e-1:log"}, "trials": 4, "confirm": 2, "sampler": "tpe"}
    path.write_text(yaml.safe_dump(content))
    loaded = load_experiment(path)
    assert (str(loaded.search), loaded.trials, loaded.confirm) == ("lr=0.001..0.1:log", 4, [0, 1])
    code, out, err = cli("tune", "--experiment", path, "--dry-run", "--out", tmp_path)
    assert code == 0, err
    assert "by TPE" in out
    code, _, err = cli("run", "--experiment", path, "--dry-run", "--out", tmp_path)
    assert (code, "is a tuning: run it with python -m ablations tune" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trials": 4}, "trials is for a tuning: give search too"),
        ({"search": "lr=1e-3..1e-1", "trials": 0}, "trials=0: must be greater than or equal to 1"),
        ({"search": 3}, "search=3: give fields with their ranges"),
        ({"search": {"lr": "1e-3"}}, "write FIELD=LOW..HIGH"),
        ({"search": {"lr": "1e-3..1e-1"}, "seeds": 4}, "trials have seeds of their own"),
        ({"search": {"lr": "1e-3..1e-1"}, "sampler": "grid"}, "sampler=grid: must"),
    ],
)
def test_a_bad_key_of_a_tuning_is_named(tmp_path, content, message):
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        load_experiment(path)


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("lr=1e-4..1e-2:log", 0.0, 1e-4),
        ("lr=1e-4..1e-2:log", 0.999999999, 1e-2),
        ("weight_decay=0..0.2", 0.25, 0.05),
        ("depth=1..4", 0.0, 1),
        ("depth=1..4", 0.9999, 4),
        ("batch_size=16..256:log", 0.5, 64),
    ],
)
def test_a_place_in_a_range_is_a_value(text, place, value):
    (one,) = parse_search(text).ranges
    assert one.value_at(place) == pytest.approx(value)
    assert isinstance(one.value_at(place), int) == one.is_integer


def test_the_points_of_few_are_the_first_of_many_and_the_seed_decides_them():
    search = parse_search(SEARCH)
    assert search.points(64)[:16] == search.points(16)
    assert parse_search(SEARCH, seed=1).points(4) != search.points(4)
    others = (SEARCH.split(",")[1] + "," + SEARCH.split(",")[0], dict(part.split("=") for part in SEARCH.split(",")))
    ways = [parse_search(other) for other in others]
    assert all(way.points(4) == search.points(4) for way in ways)


def test_powers_of_two_fill_every_range_evenly():
    for each in parse_search(SEARCH).ranges:
        places = sorted(each.position(point[each.field]) for point in parse_search(SEARCH).points(16))
        assert [int(16 * place) for place in places] == list(range(16))
    assert Range(field="lr", low=1, high=2).position(1.5) == 0.5
