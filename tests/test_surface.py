"""The options of commands, experiment files and Python functions, from their one definition."""

from __future__ import annotations

import inspect
import re

import pytest
from surface import FILE, describe

import ablations
from ablations.cli import bench, bench_gpu, bench_scale, bench_start, clean, foresee, look, run
from ablations.config import UsageError
from ablations.config.cell import FIELDS
from ablations.config.commands import BuildOptions, FieldOptions, RunOptions, TuneOptions
from ablations.config.declare import Options, declared, read_options
from ablations.config.experiment import Experiment
from ablations.config.request import make_tuning
from ablations.config.search import parse_search

MODELS = [
    model
    for module in (run, foresee, look, clean, bench, bench_gpu, bench_scale, bench_start)
    for model in vars(module).values()
    if inspect.isclass(model) and issubclass(model, Options) and model.__module__ == module.__name__
]
FUNCTIONS = {"run": RunOptions, "tune": TuneOptions, "build": BuildOptions}


def test_the_surface_is_the_committed_one():
    assert describe() == FILE.read_text(), "run python tests/surface.py if the change is meant"


@pytest.mark.parametrize("model", [*MODELS, *FUNCTIONS.values(), Experiment], ids=lambda model: model.__name__)
def test_every_option_is_described_in_a_sentence(model):
    for option in declared(model):
        assert re.fullmatch(r"[A-Za-z0-9].*\.", option.help), option.name


def test_every_field_with_a_flag_is_an_option():
    assert {*FieldOptions.model_fields} - {"fields"} == {
        name for name, field in FIELDS.items() if field.traits.has_flag
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_options_as_arguments_and_explains_each(name):
    function = getattr(ablations, name)
    options = declared(FUNCTIONS[name])
    parameters = inspect.signature(function).parameters
    assert list(parameters) == [option.name for option in options]
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters.values())
    doc = " ".join(inspect.getdoc(function).split())
    for option in options:
        assert f"{option.name}: {' '.join(option.help.split())}" in doc
    assert doc.index("Args:") < doc.index("Raises:")
    assert "as --" not in doc


def test_an_unknown_argument_is_one_line_with_the_nearest():
    with pytest.raises(UsageError, match=r"^unknown argument 'nrom', did you mean 'norm'\? Valid: task, norm"):
        ablations.run(nrom="l2")
    with pytest.raises(TypeError, match="keyword arguments only"):
        ablations.run("l2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timeout": "soon"}, "timeout=soon: give 90s, 30m or 2h"),
        ({"retry": "some"}, "retry=some: must be 'failed', 'oom', 'all' or 'none'"),
        ({"lr": 0.1, "fields": {"lr": 0.2}}, "lr is given twice"),
        ({"fields": {"seed": 3}}, "seed is not set as a field: give seeds"),
        ({"plugins": "mine"}, "plugins=mine: give a list of module names"),
        ({"max_failures": True}, "max_failures=True: give a whole number"),
        ({"fields": 3}, "fields=3: give a mapping of fields to values, or a list of texts FIELD=VALUE"),
        ({"fields": "lr=1"}, "fields=lr=1: give a mapping of fields to values, or a list of texts FIELD=VALUE"),
        ({"init": "a,a"}, "init=a,a: give one or several, each once, with commas between them"),
        ({"jobs": "x", "timeout": "soon"}, "jobs=x: give auto or a number from 1 up"),
    ],
)
def test_a_wrong_argument_is_one_line(given, message):
    with pytest.raises(UsageError) as error:
        ablations.run(**given)
    assert str(error.value) == message


def test_texts_and_python_values_ask_for_the_same():
    texts = {"norm": "xnorm,l2", "lr": "1e-3", "seeds": "0-1", "fields": ["depth=1,2"], "timeout": "30m", "jobs": "2"}
    values = {"norm": ["xnorm", "l2"], "lr": 1e-3, "seeds": 2, "fields": {"depth": [1, 2]}, "timeout": 1800, "jobs": 2}
    one, other = (read_options(RunOptions, given) for given in (texts, values))
    assert one.asked == other.asked == {"norm": ["xnorm", "l2"], "lr": [1e-3], "depth": [1, 2]}
    assert one.engine_options(retry="failed") == other.engine_options(retry="failed")
    assert one.seeds == other.seeds == [0, 1]
    assert read_options(RunOptions, {"fields": None}).asked == read_options(RunOptions, {}).asked == {}


def test_a_search_keeps_its_sampler_and_seed_unless_others_are_given():
    search = parse_search("lr=1e-4..1e-2:log", sampler="tpe", seed=3)
    found = make_tuning(read_options(TuneOptions, {"search": search})).search
    assert (found.sampler, found.seed) == ("tpe", 3)
    found = make_tuning(read_options(TuneOptions, {"search": search, "sampler": "sobol", "sampler_seed": 0})).search
    assert (found.sampler, found.seed) == ("sobol", 0)


def test_the_flags_of_the_command_line_end_in_the_same_options():
    given = {"seed": "3", "device": "cuda:1"}
    flags = read_options(run.RunFlags, given, from_flags=True)
    assert (flags.seeds, flags.devices) == ([3], ("cuda:1",))
    for both in ({"seed": "1", "seeds": "2"}, {"device": "cpu", "devices": "0"}):
        with pytest.raises(UsageError, match="not both"):
            read_options(run.RunFlags, both, from_flags=True)


@pytest.mark.parametrize("model", [*MODELS, *FUNCTIONS.values(), Experiment], ids=lambda model: model.__name__)
def test_no_check_of_a_group_hides_that_of_another(model):
    checks = model.__pydantic_decorators__.model_validators
    owners = [name for base in model.__mro__ for name in vars(base) if name in checks]
    assert len(owners) == len(set(owners))
