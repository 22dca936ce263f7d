# Everything runs in a .venv of this checkout, made on first use; PYTHON is the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= gpu
MINUTES ?= 8
DATA_FILE ?=
CORES = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')
# One worker more than cores: a quarter of the tests' time goes by in waiting for the processes that they start.
WORKERS ?= $(shell expr $(CORES) + 1)
# The tests start a hundred processes, each of which would compile the code again if nothing kept it; the workers fill
# the cores, so that more threads in each would only wait for one another.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: help setup run gpu test test-fast installed test-installed test-lowest dist check format clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' Makefile

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: Python 3.11, 3.12 or 3.13 is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: .venv/.ready ## Make the .venv and install what is needed.

run: setup ## Train xnorm, l2 and single_l2 on digits, 8 seeds each, and print the table.
	$(BIN)/python -m ablations run --norm xnorm,l2,single_l2

# Without a .venv, which needs a network.
gpu: ## Test and measure all that needs a GPU, in PYTHON itself; OUT, MINUTES, DATA_FILE (docs/gpu.md).
	$(PYTHON) -m ablations bench gpu --out $(OUT) --minutes $(MINUTES) $(DATA_FILE:%=--data-file %)

test: setup ## Run every test.
	$(PYTEST) --durations 30 --durations-min 4

# They start no process, so none waits for one; a further worker would only import everything once more.
test-fast test-lowest: WORKERS = $(CORES)

test-fast: setup ## Run the fast tests: those that are not slow and start no process.
	$(PYTEST) -m "not slow and not process"

.envs/build/.ready:
	rm -rf .envs/build
	$(PYTHON) -m venv .envs/build
	.envs/build/bin/python -m pip install --quiet build
	@touch $@

dist: .envs/build/.ready ## Build the sdist, and from it the wheel, in dist/.
	rm -rf dist
	.envs/build/bin/python -m build --outdir dist . >/dev/null

# In an environment that has torch linked from .venv and the rest as pip finds it.
installed: setup dist
	rm -rf .envs/plain
	$(BIN)/python -m venv .envs/plain
	$(BIN)/python .ci/link_torch.py .envs/plain
	.envs/plain/bin/python -m pip install --quiet --no-compile dist/*.whl
	.envs/plain/bin/python -m pip check

test-installed: installed ## Install the wheel without extras, and run its commands as a user does, in an empty folder.
	$(BIN)/python -m pytest tests/installed --python .envs/plain/bin/python --dist-dir dist \
		--numprocesses 2 --dist loadfile

# Not compiled: of all files, those that are imported are compiled then.
.envs/lowest/.ready: pyproject.toml .ci/lower_bounds.py
	rm -rf .envs/lowest
	$(PYTHON) -m venv .envs/lowest
	$(PYTHON) .ci/lower_bounds.py >.envs/lowest/bounds.txt
	.envs/lowest/bin/python -m pip install --quiet --no-compile --requirement .envs/lowest/bounds.txt
	@touch $@

# The commands are those of the wheel; the other tests test the sources, with three cases of each: most cases differ in
# their values, not in what they call, and the others have a mark.
test-lowest: BIN = .envs/lowest/bin
test-lowest: .envs/lowest/.ready dist ## Run the installed commands and the fast tests with the lowest versions allowed.
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest tests/installed --ignore tests/installed/test_plain.py \
		--python $(BIN)/python --numprocesses 2 --dist loadfile
	$(PYTEST) -m "not slow and not process" --cases 3

check: setup ## Lint, check the format and the types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the .venv and what tools have left; runs/ is kept.
	rm -rf .venv .envs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
