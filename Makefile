PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo test check bench chaos clean

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Millrace into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(READY_DEV): $(READY)
	@echo "installing the development tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

## demo: set up and run the fraud pipeline on real-looking market data
demo: $(READY)
	@$(BIN)/python examples/demo.py

## test: set up and run the whole test suite; what needs servers and clusters comes last, one at a time
test: $(READY_DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/e2e
	$(BIN)/python -m pytest tests/e2e

## check: lint, format and types, as CI runs them
check: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

## bench: the benchmark tables, beside DuckDB on one thread
bench: $(READY_DEV)
	$(BIN)/python -m benchmarks all

## chaos: Kafka to Kafka on Ray under kill -9 for minutes; the report is out/chaos/report.md
chaos: $(READY_DEV)
	$(BIN)/python -m tests.chaos $(CHAOS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
