"""What a plain installation may lack: no module needs at import time what pyproject.toml does not require."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence

import pytest
from test_architecture import FILES, ROOT

from ablations.config import UsageError
from ablations.config.options import EngineOptions
from ablations.config.packages import EXTRAS as NAMED
from ablations.config.packages import OPTIONAL, require_package
from ablations.planning import checks
from ufo.registry import UnknownNameError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

DISTRIBUTIONS = importlib.metadata.packages_distributions()
"""Module to the distributions that bring it."""

OF_FEATURE = {"ufo/timm_models.py": {"timm"}}
"""Module that is an optional feature itself, to what it may need at import time."""

PIP_TIMM = f"pip install '{OPTIONAL['timm']}'"

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Parts of a statement that hold statements."""


def canonical(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-")


def top_levels(requirements: Sequence[str]) -> set[str]:
    """Return the modules that the distributions bring."""
    wanted = {canonical(requirement) for requirement in requirements}
    return {module for module, names in DISTRIBUTIONS.items() if wanted & {canonical(name) for name in names}}


def third_party(nodes: Sequence[ast.stmt], *, at_import: bool) -> Iterator[str]:
    """Yield the top-level packages that statements import: when the module is imported, or whenever they are run."""
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            found = []
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not (at_import and is_function):
                skipped = ("body",) if at_import and if_typing else ()
                parts = [getattr(node, part, []) for part in BLOCKS if part not in skipped]
                yield from third_party([child for part in parts for child in part], at_import=at_import)
        for name in found:
            yield from OF_FEATURE.get(f"{name.replace('.', '/')}.py", ())
            top = name.partition(".")[0]
            if top not in ("ufo", "ablations") and top not in sys.stdlib_module_names:
                yield top


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_needs_at_import_time_is_required(path):
    required = top_levels(PROJECT["dependencies"]) | OF_FEATURE.get(str(path.relative_to(ROOT)), set())
    body = ast.parse(path.read_text()).body
    assert set(third_party(body, at_import=True)) <= required
    assert set(third_party(body, at_import=False)) <= required | OPTIONAL.keys()


def test_an_import_anywhere_in_a_module_is_seen():
    lines = "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c.d\nexcept OSError:\n    from e import f\n"
    lines += "from ufo import timm_models, norms\nimport ufo.layers\nmatch m:\n    case 1:\n        import n\n"
    lines += "class G:\n    import h\n    def i(self):\n        import j\nwith k:\n    import l\n"
    body = ast.parse(lines).body
    assert list(dict.fromkeys(third_party(body, at_import=True))) == ["a", "c", "e", "timm", "n", "h", "l"]
    assert list(dict.fromkeys(third_party(body, at_import=False))) == ["a", "b", "c", "e", "timm", "n", "h", "j", "l"]


def test_every_requirement_has_a_lower_bound_and_no_optional_one_is_required():
    required = PROJECT["dependencies"]
    assert all(">=" in requirement for requirement in required)
    assert not {canonical(requirement) for requirement in required} & OPTIONAL.keys()


def test_every_requirement_is_imported_somewhere():
    imported = {name for path in FILES for name in third_party(ast.parse(path.read_text()).body, at_import=False)}
    assert not [requirement for requirement in PROJECT["dependencies"] if not imported & top_levels([requirement])]


def test_each_optional_package_is_an_extra_of_its_own():
    own = {name: EXTRAS[NAMED.get(name, name)] for name in OPTIONAL}
    assert {name: [requirement] for name, requirement in OPTIONAL.items()} == own


@pytest.fixture
def bare(monkeypatch):
    """Find no optional package, as in a plain installation."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in OPTIONAL else find_spec(name))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("package", OPTIONAL)
def test_an_absent_package_is_named_with_the_feature_and_the_remedy(package):
    with pytest.raises(UsageError) as error:
        require_package(package, "--a feature")
    assert str(error.value) == f"--a feature needs {package}, which is not installed: pip install '{OPTIONAL[package]}'"


def test_a_folder_of_its_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OPTIONAL, "a_folder", "a_folder")
    with pytest.raises(UsageError, match="needs a_folder, which is not installed"):
        require_package("a_folder", "--log a_folder")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("arguments", "feature"),
    [
        (("run", "--model", "timm:resnet18"), "model timm:resnet18 needs timm"),
        (("run", "--task", "detect", "--model", "timm:resnet18"), "model timm:resnet18 needs timm"),
        (("tune", "--search", "lr=1e-3..1e-2:log", "--log", "tensorboard"), "--log tensorboard needs tensorboard"),
        (("run", "--log", "wandb"), "--log wandb needs wandb"),
        (("bench", "model"), "model timm:xcit_small_12_p16_224 needs timm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_that_needs_an_absent_package_says_so_in_one_line(cli, tmp_path, monkeypatch, arguments, feature):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*arguments)
    assert code == 2
    assert err.startswith(f"error: {feature}, which is not installed: pip install '")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_study_that_grows_without_a_package_that_it_was_begun_with_says_so(cli, images, tmp_path, monkeypatch):
    nets = ("--model", "ufo_vit_pico,timm:test_vit")
    run = ("run", "--compare", "model", "--data", f"imagefolder:{images}", "--smoke", "--out", tmp_path / "out")
    small = ("--set", "train_limit=64", "--study", "s")
    assert cli(*run, *small, *nets, "--seeds", 1)[0] == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, err = cli(*run, *small, "--seeds", 2)
    assert (code, err) == (2, f"error: model timm:test_vit needs timm, which is not installed: {PIP_TIMM}\n")


def test_an_unknown_logger_is_refused():
    import torch

    with pytest.raises(UnknownNameError, match="unknown logger 'tensorbord', did you mean 'tensorboard'"):
        checks.check_engine((torch.device("cpu"),), EngineOptions(loggers=("tensorbord",)))
