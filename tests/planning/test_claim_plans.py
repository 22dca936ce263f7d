"""What a plan says of claims: numbers that other studies have shown, and verdicts that too few cells cannot give."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from studies import SEARCH, make_study, make_tuned

from ablations.config import Study, UsageError
from ablations.config.claim import parse_claims
from ablations.config.request import Request
from ablations.config.search import parse_search
from ablations.planning import known
from ablations.planning.asked import name_claimed_arms
from ablations.planning.claims import claim_lines
from ablations.planning.known import mark_known
from ablations.planning.stored import read_stored
from ablations.store import Store
from ablations.store.frames import read_frames

WORSE = {"kind": "worse_by", "arm": "l2", "than": "xnorm", "margin_pct": 1}
BEST = {"kind": "better_than_every_other", "arm": "l2"}
FAILS = {"kind": "fails_to_train", "arm": "l2"}
LINEAR = {"kind": "cost_linear_in_tokens", "arm": "l2"}
ANY_LR = {"kind": "fails_at_any_lr", "arm": "l2"}


def planned(out: Path, *claims: dict[str, object], name: str = "again", **options: object) -> Study:
    """Plan a study with the cells that `make_study` makes of these options, in a fresh folder of ``out``."""
    folder = make_study(out / "elsewhere", name=name, claims=claims, **options)
    store = Store(folder)
    study, cells = store.read_study(), [record.config for record in store.records().values()]
    shutil.rmtree(out / "elsewhere")
    return mark_known(study, cells, stored=read_stored(Store(out / name)), out=out)


def sources(study: Study) -> list[tuple[str, ...]]:
    return [claim.known_from for claim in study.claims]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of studies, and enter the folder above it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_study_repeated_in_a_fresh_folder_is_marked_where_its_numbers_were_known(out):
    make_study(out, name="first")
    study = planned(out, WORSE, BEST, FAILS, LINEAR)
    assert sources(study) == [("first",), ("first",), ("first",), ()]  # no cell judges a cost
    (line,) = (line for line in claim_lines(study) if "numbers known" in line)
    assert line.startswith(
        "numbers known from first before these claims were in this study: 'l2 is worse than xnorm by"
    )
    (out / "first" / "cost.csv").touch()
    assert sources(planned(out, LINEAR)) == [("first",)]


def test_results_beside_the_current_directory_count_too_and_links_count_once(out, tmp_path):
    make_study(tmp_path / "results", name="again")
    (tmp_path / "results" / "link").symlink_to(tmp_path / "results" / "again")
    assert sources(planned(out, FAILS)) == [("results/again",)]
    (out / "again").symlink_to(tmp_path / "results" / "again")  # the same folder is no other study
    assert sources(planned(out, FAILS)) == [()]


def test_arms_of_which_nothing_was_known_are_told_apart(out):
    make_study(out, name="first", norms=("xnorm", "none"))
    study = planned(out, WORSE, BEST, FAILS)
    assert sources(study) == [("first (only xnorm)",), ("first (only xnorm)",), ()]


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 4},  # other cells
        {"stories": {(arm, seed): "oom" for arm in ("xnorm", "l2", "single_l2") for seed in range(4)}},  # no result
        {"missing": [(arm, seed) for arm in ("xnorm", "l2", "single_l2") for seed in range(4)]},
    ],
)
def test_other_cells_and_those_without_a_result_mark_nothing(out, options):
    make_study(out, name="first", **options)
    assert sources(planned(out, WORSE, FAILS)) == [(), ()]


def test_only_results_in_the_conditions_of_a_claim_mark_it(out):
    make_study(out, name="first", depth=[2], lr=[1e-3, 3e-3])
    stable = {"kind": "less_stable_than", "arm": "l2", "than": "xnorm"}
    claims = [{**claim, "at": {"depth": depth}} for claim in (FAILS, stable) for depth in (2, 4)]
    study = planned(out, *claims, WORSE, depth=[2, 4], lr=[1e-3, 3e-3])
    assert sources(study) == [("first",), (), ("first",), (), ("first",)]


def packed(folder: Path) -> Path:
    shutil.rmtree(folder / "cells")
    (folder / "cells.tar.xz").touch()
    return folder


def test_results_of_packed_cells_count_and_are_named_if_they_cannot_be_read(out, caplog):
    first = make_study(out, name="first", norms=("l2", "none"))
    read_frames(Store(first), numerics=None).cells.to_csv(first / "results.csv", index=False)
    packed(first)
    assert sources(planned(out, FAILS, {**FAILS, "arm": "xnorm"})) == [("first",), ()]
    assert not caplog.text
    (first / "results.csv").unlink()
    assert sources(planned(out, FAILS)) == [()]
    assert f"{first / 'cells.tar.xz'} is packed; whether it has results of these cells is not known" in caplog.text


def test_no_run_begins_where_the_cells_are_packed(out, cli):
    folder = packed(make_study(out, name="norm-digits"))
    before = (folder / "study.yaml").read_text()
    code, _, err = cli("run", "--norm", "xnorm,l2", "--data", "digits", "--study", "norm-digits", "--out", out)
    assert (code, "are packed; unpack them first: tar -xJf" in err) == (2, True)
    assert (folder / "study.yaml").read_text() == before


@pytest.mark.parametrize("kind", ["pipe", "deep", "link", "closed"])
def test_records_of_another_study_that_are_not_to_be_read_mark_nothing_and_are_named(out, kind, caplog):
    folder = make_study(out, name="first")
    for cell in list((folder / "cells").iterdir()):
        record = cell / "outcome.json"
        if kind == "link":
            cell.rename(out.parent / cell.name)
            cell.symlink_to(out.parent / cell.name)
        elif kind == "deep":
            record.write_text("[" * 100_000)
        elif kind == "pipe":
            record.unlink()
            os.mkfifo(record)
    if kind == "closed":
        shutil.rmtree(folder / "cells")
        (folder / "cells").touch()
    assert sources(planned(out, WORSE, FAILS)) == [(), ()]
    assert str(folder / "cells") in caplog.text
    assert ("12 symbolic links not followed" in caplog.text) == (kind == "link")


def test_records_count_whose_study_yaml_is_gone(out):
    (make_study(out, name="first") / "study.yaml").unlink()
    assert sources(planned(out, FAILS)) == [("first",)]


def test_tables_without_cells_are_said_where_claims_are_made(out, cli):
    study = make_study(out, name="norm-digits", norms=["xnorm", "l2"], seeds=1)
    asked = out.parent / "asked.yaml"
    asked.write_text(yaml.safe_dump({"study": study.name, "norm": ["xnorm", "l2"], "seeds": 1, "claims": [FAILS]}))
    (study / "results.csv").write_text("arm,seed\n")  # of a report without a cell
    shutil.rmtree(study / "cells")
    line, run = "has tables of cells that are gone", ("run", "--experiment", asked, "--out", out, "--dry-run")
    assert line not in cli(*run)[1]
    (study / "results.csv").write_text("arm,seed\nl2,0\n")
    assert line in cli(*run)[1]
    (study / "study.yaml").unlink()
    assert line in cli(*run)[1]


def test_claims_that_come_after_the_curves_of_an_interrupted_cell_are_post_hoc(out):
    folder = make_study(out, name="again", seeds=1, claims=[WORSE])
    stored = Store(folder)
    cells = [record.config for record in stored.records().values()]
    shutil.rmtree(folder / "cells")
    study = stored.read_study().model_copy(update={"claims": parse_claims([FAILS])})

    def marks(cells):
        planned = read_stored(stored).with_claims(study, cells)
        return [(claim.kind, claim.post_hoc) for claim in planned.claims]

    assert marks(cells) == [("fails_to_train", False)]
    partial = folder / "cells" / ".partial" / f"{cells[0].id}.1"
    partial.mkdir(parents=True)
    assert marks(cells) == [("fails_to_train", False)]
    (partial / "metrics.csv").write_text("epoch\n1\n")
    assert marks(cells) == [("worse_by", False), ("fails_to_train", True)]
    assert marks(cells[1:]) == [("fails_to_train", False)]  # curves of another cell
    fewer = study.model_copy(update={"axes": {**study.axes, "norm": study.axes["norm"][:2]}})
    best = {"kind": "better_than_every_other", "arm": "xnorm"}
    stored.write_study(study.model_copy(update={"claims": parse_claims([best])}))
    assert [claim.post_hoc for claim in read_stored(stored).with_claims(fewer, cells).claims] == [True, True]
    many = [{**FAILS, "kind": "worse_by", "than": "xnorm", "margin_pct": 1 + number} for number in range(99)]
    with pytest.raises(UsageError, match="101 claims are above the limit of 100"):
        read_stored(stored).with_claims(study.model_copy(update={"claims": parse_claims([FAILS, *many])}), cells)
    (folder / "study.yaml").unlink()
    assert marks(cells) == [("fails_to_train", True)]


def test_marked_claims_of_trials_go_to_the_winners_as_they_are():
    marks = {"post_hoc": True, "known_from": ("first",)}
    claims = tuple(claim.model_copy(update=marks) for claim in parse_claims([ANY_LR, FAILS]))
    assert name_claimed_arms(Request(asked={"norm": ["xnorm", "l2"]}, claims=claims)).claims == claims


def test_cells_that_cannot_be_listed_mark_nothing(out, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    make_study(out, name="first")
    monkeypatch.setattr(known.os, "scandir", refuse)
    assert known._known_places(out / "first", {"0": known.Place("l2", (0,))}) == set()


@pytest.mark.parametrize(
    ("before", "arms", "after"),
    [
        ("smoke", {"xnorm"}, "smoke"),
        ("smoke (only xnorm)", {"xnorm", "l2"}, "smoke"),
        ("smoke (only xnorm)", {"l2"}, "smoke"),
        ("smoke (only xnorm)", {"xnorm"}, "smoke (only xnorm)"),
    ],
)
def test_a_study_marks_a_claim_once(out, before, arms, after):
    (claim,) = parse_claims([WORSE])
    study = Store(make_study(out, name="again")).read_study()
    claim = claim.model_copy(update={"known_from": (before, "other")})
    marked = known._marked(claim, study, "smoke", arms, has_costs=False)
    assert sorted(marked.known_from) == sorted((after, "other"))


def test_a_study_whose_claims_came_first_stays_as_it_is_when_another_repeats_it(out):
    make_study(out, name="again", claims=[FAILS], missing=[("l2", 3)])
    make_study(out, name="later")
    assert sources(planned(out, FAILS)) == [()]  # it resumes


def test_seeds_that_another_study_has_shown_mark_the_claims_that_they_extend(out):
    make_study(out, name="again", claims=[FAILS], seeds=4)
    make_study(out, name="other", seeds=6)
    assert sources(planned(out, FAILS, seeds=4)) == [()]
    assert sources(planned(out, FAILS, seeds=6)) == [("other",)]


def test_a_copy_of_a_folder_keeps_what_its_claims_had(out):
    make_study(out, name="first", claims=[FAILS])
    shutil.copytree(out / "first", out / "again")
    assert sources(planned(out, FAILS)) == [()]


def test_a_claim_that_is_post_hoc_here_keeps_that_mark(out):
    make_study(out, name="first")
    late = parse_claims([FAILS])[0].model_copy(update={"post_hoc": True})
    folder = make_study(out, name="again", seeds=4)
    study = Store(folder).read_study()
    more = study.model_copy(update={"claims": (late,), "axes": {**study.axes, "seed": [0, 1, 2, 3, 4]}})
    assert mark_known(more, [], stored=read_stored(Store(folder)), out=out).claims == (late,)


def test_trials_judge_only_the_claims_about_trials(out):
    tuning = make_tuned(out, name="first", confirmed=False)
    study = Store(tuning).read_study().model_copy(update={"claims": parse_claims([ANY_LR, FAILS])})
    cells = [record.config for record in Store(tuning).records().values()]
    stored = read_stored(Store(out / "again" / "tuning"))
    assert sources(mark_known(study, cells, stored=stored, out=out)) == [("first/tuning",), ()]
    folder = make_tuned(out / "more", name="again")
    winners = Store(folder).read_study().model_copy(update={"claims": parse_claims([ANY_LR, FAILS])})
    cells = [record.config for record in Store(folder).records().values()]
    shutil.move(folder, out / "second")
    assert sources(mark_known(winners, cells, stored=stored, out=out)) == [(), ("second",)]


def test_marks_survive_in_study_yaml(out):
    make_study(out, name="first")
    store = Store(out / "again")
    store.write_study(planned(out, FAILS))
    assert sources(store.read_study()) == [("first",)]


def test_records_are_read_only_until_an_arm_is_known(out, monkeypatch):
    folder, read = make_study(out, name="first", seeds=8), []
    has_result = known._has_result
    monkeypatch.setattr(known, "_has_result", lambda cell: read.append(cell.name) or has_result(cell))
    for number in range(100):
        (folder / "cells" / f"xnorm-s{number}-{number:010x}").mkdir()
    assert sources(planned(out, FAILS, seeds=8)) == [("first",)]
    assert sorted(name.partition("-")[0] for name in read) == ["l2", "single_l2", "xnorm"]


def test_a_plan_says_which_verdicts_too_few_seeds_cannot_give(out):
    assert claim_lines(planned(out, FAILS, WORSE, seeds=4)) == [
        "4 seeds can support or contradict no claim of the kind fails_to_train, whatever the results: the smallest p "
        "is 0.062, and the 2 tests of the claims are one family: give at least 5 seeds"
    ]
    assert claim_lines(planned(out, FAILS, WORSE, seeds=5)) == [
        "5 seeds can support or contradict a claim of the kind fails_to_train only after 1 other: the smallest p is "
        "0.031, and the 2 tests of the claims are one family"
    ]
    assert claim_lines(planned(out, FAILS, WORSE, seeds=6)) == []
    assert claim_lines(planned(out, FAILS, seeds=4)) == [
        "4 seeds can support or contradict no claim of the kind fails_to_train, whatever the results: the smallest p "
        "is 0.062: give at least 5 seeds"
    ]


def test_every_condition_counts_and_so_does_every_other_arm(out):
    order = [{"kind": "greater_than", "arm": "l2", "than": "xnorm"}, BEST]
    (line,) = claim_lines(planned(out, *order, seeds=7, lr=[1e-3, 2e-3, 3e-3]))
    assert line == (
        "7 seeds can contradict a claim of the kind better_than_every_other only after 3 others: "
        "the smallest p is 0.016, and the 6 tests of the claims are one family"
    )


def test_no_smallest_p_is_above_one(out):
    lines = claim_lines(planned(out, BEST, seeds=2, norms=("l2", "xnorm", "none", "elu", "sima", "softmax")))
    assert ["the smallest p is 1:" in line for line in lines if "contradict" in line] == [True]


def test_claims_that_no_number_of_seeds_can_decide_are_said(out):
    study = planned(out, BEST, seeds=2, norms=("l2", "xnorm"), lr=[1e-3, 2e-3])
    lines = claim_lines(study.model_copy(update={"claims": study.claims * 3_000}))
    assert [line.rpartition(": ")[2] for line in lines] == ["no number of seeds suffices for so many claims"]
    assert "no claim of the kind better_than_every_other, whatever the results: the smallest p is" in lines[0]


def test_a_tuning_says_how_many_trials_its_claims_take(out):
    claims = [ANY_LR, {**ANY_LR, "arm": "single_l2"}, FAILS]
    tuning = make_tuned(out, trials=16, confirmed=False, claims=claims)
    (line,) = claim_lines(Store(tuning).read_study())
    assert line == (
        "16 trials can support no claim of the kind fails_at_any_lr, whatever the results: the smallest p is 0.028, "
        "and the 3 tests of the claims are one family: give at least 17 trials"
    )
    tpe = parse_search(SEARCH).model_copy(update={"sampler": "tpe"})
    assert claim_lines(Store(tuning).read_study().model_copy(update={"search": tpe})) == []


def test_claims_about_other_arms_are_named_and_not_counted(out):
    study = planned(out, FAILS, {**FAILS, "arm": "none"}, {**FAILS, "arm": "elu"}, seeds=5)
    assert claim_lines(study) == ["claims about arms that are not in this study stay undecided: none, elu"]


@pytest.mark.parametrize(
    ("compare", "written", "named"),
    [
        ("lr", ("1e-2", "1E-3"), ("0.01", "0.001")),
        ("lpi", ("yes", "no"), ("on", "off")),
        ("norm", ("l2", "xnorm"), ("l2", "xnorm")),
    ],
)
def test_the_arms_of_claims_are_named_as_those_of_the_study(compare, written, named):
    claims = parse_claims([{"kind": "greater_than", "arm": written[0], "than": written[1], "source": "s"}])
    (claim,) = name_claimed_arms(Request(asked={}, compare=compare, claims=claims)).claims
    assert (claim.arm, claim.than, claim.kind, claim.source) == (*named, "greater_than", "s")


def test_claims_that_are_equal_once_their_arms_are_named_are_refused():
    claims = parse_claims([{"kind": "fails_to_train", "arm": arm} for arm in ("1e-2", "0.01")])
    with pytest.raises(UsageError, match=r"claim '0\.01 fails to train' is given twice"):
        name_claimed_arms(Request(asked={}, compare="lr", claims=claims))
