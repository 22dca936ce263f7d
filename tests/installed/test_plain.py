"""An environment without extras: what is in the distributions, and what an absent package costs."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from ablations.config.packages import OPTIONAL
from ablations.store.provenance import ROOT, describe

LEFT_OUT = ("tests", "results", "notebooks", "runs", "docs", ".ci", ".github")


@pytest.fixture(scope="module")
def dist(request) -> Path:
    given = request.config.getoption("--dist-dir")
    if given is None:
        raise pytest.UsageError(
            "tests/installed: give the folder of wheel and sdist as --dist-dir, or make test-installed"
        )
    return Path(given)


def package_files() -> set[str]:
    """Return every file of the packages in the checkout."""
    paths = (path for top in ("ufo", "ablations") for path in (ROOT / top).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert {"ablations/report/page.html.j2", "ablations/py.typed", "ufo/py.typed"} <= names
    assert "ablations/experiments/norm_digits.yaml" in names


def test_the_sdist_has_what_builds_the_wheel_and_no_tests_or_results(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files() <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert not {name.partition("/")[0] for name in names} & set(LEFT_OUT)


def test_the_environment_has_no_extras(run, tmp_path):
    code = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
    names = {name.lower().replace("_", "-") for name in json.loads(run("-c", code, folder=tmp_path))}
    assert "ufo-ablations" in names
    assert not names & {*OPTIONAL, "pytest", "hypothesis", "statsmodels", "playwright", "nbclient", "ipykernel"}
    assert "pycocotools" not in names


def test_every_module_is_imported_from_the_environment(run, tmp_path):
    code = """
import importlib, pathlib, pkgutil, ablations, ufo
for package in (ablations, ufo):
    assert "site-packages" in package.__file__, package.__file__
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__") and module.name != "ufo.timm_models":
            importlib.import_module(module.name)
            print(module.name)
"""
    modules = run("-c", code, folder=tmp_path).split()
    assert {"ablations.api", "ablations.bench.models", "ufo.testing", "ufo.detection.mask_rcnn"} <= set(modules)


def test_a_cell_of_the_wheel_and_one_of_the_checkout_have_the_same_sources(run, tmp_path):
    code = "from ablations.store.provenance import describe; print(describe()['source_hash'])"
    assert run("-c", code, folder=tmp_path).strip() == describe()["source_hash"]


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (("run", "--model", "timm:resnet18"), "model timm:resnet18 needs timm"),
        (("run", "--log", "tensorboard"), "--log tensorboard needs tensorboard"),
        (("run", "--log", "wandb"), "--log wandb needs wandb"),
        (("run", "--engine", "ray"), "--engine ray needs ray"),
        (("run", "--engine", "slurm"), "--engine slurm needs submitit"),
        (("bench", "model"), "model timm:xcit_small_12_p16_224 needs timm"),
    ],
    ids=["timm", "tensorboard", "wandb", "ray", "slurm", "bench model"],
)
def test_what_needs_an_absent_package_is_one_line(ablations, tmp_path, arguments, needs):
    out = ablations(*arguments, folder=tmp_path, code=2)
    assert out.startswith(f"error: {needs}, which is not installed: pip install '")
    assert out.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_net_without_timm_says_what_its_registry_needs(run, tmp_path):
    code = "import ufo; ufo.build('ufo_vit_pico', num_classes=3)\ntry:\n    import ufo.timm_models\n"
    code += "except ModuleNotFoundError as error:\n    print(error)\n"
    assert run("-c", code, folder=tmp_path).startswith("ufo.timm_models needs timm: pip install")
