# Everything runs in a .venv of this checkout, made on first use; PYTHON is the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
# One worker more than cores: a quarter of the tests' time goes by in waiting for the processes that they start.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: help setup run test test-fast test-installed test-lowest dist check format clean

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

# The tests start a hundred processes, each of which would compile the code anew where nothing keeps it.
test: setup ## Run every test.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-fast: setup ## Run the fast tests: those that are not slow and start no process.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow and not process"

.envs/build/.ready:
	rm -rf .envs/build
	$(PYTHON) -m venv .envs/build
	.envs/build/bin/python -m pip install --quiet build
	@touch $@

dist: .envs/build/.ready ## Build the sdist, and from it the wheel, in dist/.
	rm -rf dist
	.envs/build/bin/python -m build --outdir dist . >/dev/null

# From an empty folder, in an environment that has torch linked from .venv and the rest as pip finds it.
test-installed: setup dist ## Install the wheel without extras, and run its commands as a user does.
	rm -rf .envs/plain
	$(BIN)/python -m venv .envs/plain
	$(BIN)/python .ci/link_torch.py .envs/plain
	.envs/plain/bin/python -m pip install --quiet dist/*.whl
	.envs/plain/bin/python -m pip check
	$(BIN)/python -m pytest tests/installed --python .envs/plain/bin/python --dist-dir dist \
		--numprocesses 2 --dist loadfile

.envs/lowest/.ready: pyproject.toml .ci/lower_bounds.py
	rm -rf .envs/lowest
	$(PYTHON) -m venv .envs/lowest
	$(PYTHON) .ci/lower_bounds.py >.envs/lowest/bounds.txt
	.envs/lowest/bin/python -m pip install --quiet --requirement .envs/lowest/bounds.txt
	@touch $@

# The commands are those of the wheel; the other tests test the sources.
test-lowest: .envs/lowest/.ready dist ## Run the installed commands and the fast tests with the lowest versions allowed.
	.envs/lowest/bin/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	.envs/lowest/bin/python -m pip check
	.envs/lowest/bin/python -m pytest tests/installed --ignore tests/installed/test_plain.py \
		--python .envs/lowest/bin/python --numprocesses 2 --dist loadfile
	PYTHONDONTWRITEBYTECODE= .envs/lowest/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow and not process"

check: setup ## Lint, check the format and the types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the .venv and what tools have left; runs/ is kept.
	rm -rf .venv .envs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
