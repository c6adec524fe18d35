# Every target works on a fresh machine: it makes .venv itself, and again costs nothing when nothing changed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: run demo test check bench fuzz clean

run: .venv/.run
	$(BIN)/python -m service serve

demo: .venv/.run
	$(BIN)/python -m bench.demo

test: .venv/.test
	$(BIN)/python -m pytest

check: .venv/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.test
	$(BIN)/python -m bench

fuzz: .venv/.test
	$(BIN)/python -m tests.imaging.fuzz --seconds $(or $(SECONDS),600)

clean:
	rm -rf .venv

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.run: setup.cfg pyproject.toml | .venv/bin/pip
	$(PIP) --editable .
	@touch $@

.venv/.test: .venv/.run
	$(PIP) --editable '.[test]'
	@touch $@

.venv/.lint: .venv/.test
	$(PIP) --editable '.[test,lint]'
	@touch $@
