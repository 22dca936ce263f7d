# Everything runs in a .venv of this checkout, made on first use; PYTHON is the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
# One worker more than cores: a quarter of the tests' time goes by in waiting for the processes that they start.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: help setup run test check format clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' Makefile

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

check: setup ## Lint, check the format and the types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the .venv and what tools have left; runs/ is kept.
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
