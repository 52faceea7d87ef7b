# Everything from a fresh checkout, with nothing but Python 3.11 or newer and make. `make help` lists the targets.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: mars test test-slow test-families test-browser test-cluster torture lint format docs wheel clean help

mars: $(VENV)/ready  ## set everything up and make the images of job=mars_batch (the default)
	$(BIN)/python -m batchgen job=mars_batch

test: $(VENV)/ready  ## run the tests, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

test-slow: $(VENV)/ready  ## run the tests that are marked slow: whole runs of models, many kills, injected faults
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not families" --numprocesses auto --dist worksteal

test-families: $(VENV)/ready  ## run the tests of each family of models, with tiny random weights
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m families --numprocesses auto --dist loadscope tests/models/families

test-browser: $(VENV)/ready  ## open reports in a headless Chromium; as root on Debian it installs that
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

test-cluster: $(VENV)/ready  ## run the tests on a real SLURM on this machine; needs root on Debian, and installs it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster

torture: $(VENV)/ready  ## run the fault injection, about half an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m torture --numprocesses auto --dist worksteal

lint: $(VENV)/ready  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/ready  ## write docs/configuration.md from the schema
	$(BIN)/python -m batchgen.config.describe > docs/configuration.new
	mv docs/configuration.new docs/configuration.md

wheel: $(VENV)/ready  ## build dist/batchgen-*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove the environment, what was built and the caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "make %-14s %s\n", $$1, $$2}' Makefile

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
