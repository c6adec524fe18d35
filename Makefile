# Every target works on a fresh machine: it makes .venv itself, and again costs nothing when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: run demo test test-slow coverage check bench fuzz clean

run: .venv/.run
	$(BIN)/python -m service serve

demo: .venv/.run
	$(BIN)/python -m bench.demo

# Tests wait more than they compute: four at a time suit two cores. One after the other: make test JOBS=0.
JOBS ?= 4
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# The tests start many processes: without bytecode files each would compile the whole service.
unexport PYTHONDONTWRITEBYTECODE

test: .venv/.test
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: .venv/.test
	$(PYTEST) -m slow $(PYTEST_ARGS)

check: .venv/.lint
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

bench: .venv/.test
	$(BIN)/python -m bench

fuzz: .venv/.test
	$(BIN)/python -m tests.imaging.fuzz --seconds $(or $(SECONDS),600)

# How much of `service` the tests reach, by file and in all.
coverage: .venv/.test
	$(PYTEST) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

clean:
	rm -rf .venv

.venv/bin/pip:
	@echo 'Making a Python environment in .venv'
	@$(PYTHON) -m venv .venv

.venv/.run: setup.cfg pyproject.toml | .venv/bin/pip
	@echo 'Installing the service and its libraries; the first time this takes about a minute'
	@$(PIP) --editable .
	@touch $@

.venv/.test: .venv/.run
	@echo 'Installing what the tests need'
	@$(PIP) --editable '.[test]'
	@touch $@

.venv/.lint: .venv/.test
	@echo 'Installing the linters'
	@$(PIP) --editable '.[test,lint]'
	@touch $@
