# One line each; every target makes what it needs. Needs Python 3.11 or later, pip and a package registry.
PYTHON ?= python3
BIN := .venv/bin
RUN_STAMP := .venv/.run-installed
DEV_STAMP := .venv/.dev-installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long lint types contracts docs faults bench bench-gateway bench-ledger soak ledger-crash ledger-simulate lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Droveway needs Python 3.11 or later; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

$(RUN_STAMP): requirements.lock pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): requirements-dev.lock pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(RUN_STAMP)

install: $(DEV_STAMP)  ## set up .venv with the development tools

demo: $(RUN_STAMP)  ## 17 agents at work against a provider that misbehaves, and the bill
	$(BIN)/droveway demo

lint: $(DEV_STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)  ## mypy, strict
	$(BIN)/mypy

contracts: $(DEV_STAMP)  ## import contracts
	$(BIN)/lint-imports --no-cache

test: lint types contracts  ## everything that must be green, in under five minutes
	$(BIN)/pytest -n 4 -m 'not long' --durations=8

test-long: $(DEV_STAMP)  ## the long proofs, with coverage
	$(BIN)/coverage erase
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run -m pytest -p no:xdist --durations=8
	$(BIN)/coverage combine
	$(BIN)/coverage report --skip-covered --show-missing

ledger-crash: $(DEV_STAMP)  ## kill servers that take money, at random and 1,000 times at named points, and cut their log
	LEDGER_CRASH_POINT_KILLS=$${LEDGER_CRASH_POINT_KILLS:-1000} $(BIN)/pytest -m long tests/cli/test_billing_crashes.py tests/cli/test_crash_points.py tests/ledger/test_cut_log.py

ledger-simulate: $(DEV_STAMP)  ## 10,000 worlds in which processes die at any statement (LEDGER_SIMULATION_WORLDS, DROVEWAY_SEED)
	$(BIN)/pytest -m long tests/ledger/test_simulation.py

faults: $(DEV_STAMP)  ## every fault of the sandbox, by library and gateway: green or red
	PYTHONPATH=tests $(BIN)/python -m faults.show

bench: $(DEV_STAMP)  ## the figures of docs/explanation/speed.md, measured here
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/transport.py
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python benchmarks/parts.py

bench-gateway: $(DEV_STAMP)  ## the gateway beside nginx, in one run of three minutes
	$(BIN)/python benchmarks/gateway.py
	$(BIN)/python benchmarks/rooms.py

bench-ledger: $(DEV_STAMP)  ## what the ledger does in a second, and how long a hold takes
	$(BIN)/python benchmarks/ledger.py

MINUTES ?= 60
soak: $(DEV_STAMP)  ## 500 streams held open for an hour (MINUTES) while the vendor misbehaves: does anything leak?
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

docs: $(DEV_STAMP)  ## remake what the pages show of the code
	$(BIN)/python docs/insert_snippets.py
	$(BIN)/python docs/make_cli_page.py > docs/reference/cli.md.new
	mv docs/reference/cli.md.new docs/reference/cli.md
	$(BIN)/python docs/make_python_page.py > docs/reference/python.md.new
	mv docs/reference/python.md.new docs/reference/python.md

lock: .venv/bin/python  ## remake the lock files
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --group build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
