# Every developer task. A machine with Python 3.11 or later, make and git needs nothing else for `demo` and `test`.
.DEFAULT_GOAL := help
.PHONY: help venv demo up test test-slow lint types docs pictures bench bench-engine bench-demo train-demo clean

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
# Installed to run, and installed to develop: the demo does not wait for test tools.
RUNTIME := .venv/.stagebeam-runtime
DEV := .venv/.stagebeam-dev

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "stagebeam needs Python 3.11 or later; install it or set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(RUNTIME): pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(PIP) --quiet --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(PIP) --quiet --editable '.[dev]'
	@touch $@ $(RUNTIME)

venv: $(DEV) ## Set up .venv with everything for development

demo: $(RUNTIME) ## Run the demo job on the embedded stack, end to end
	$(BIN)/stagebeam demo

up: $(RUNTIME) ## Start API, dashboard, orchestrator and one worker on this machine
	$(BIN)/stagebeam up

test: $(DEV) ## Run the test suite (servers that are not installed are skipped, unless CI is set)
	$(BIN)/pytest -m "not slow" -n auto

test-slow: $(DEV) ## Run the tests that are too long for every change
	$(BIN)/pytest -m slow --timeout 900

lint: $(DEV) ## Check style, sizes and the direction of imports
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV) ## Check types, strictly
	$(BIN)/mypy

docs: $(DEV) ## Write the reference of commands and settings from the code
	COLUMNS=110 $(BIN)/python docs/generate.py

pictures: $(DEV) ## Take the pictures of README with the demo model (needs chromium with chromedriver)
	$(BIN)/python -m docs.pictures

bench: $(DEV) ## Measure ingest, decisions per second, memory and broker bytes
	$(BIN)/python -m benchmarks

bench-engine: $(DEV) ## Measure the engine against plain generate
	$(BIN)/python -m benchmarks.engine

bench-demo: $(DEV) ## Measure the demo model on held-out scenes: alone, with search, as a judge
	$(BIN)/python -m benchmarks.demo_model

train-demo: $(DEV) ## Train the demo model from generated scenes
	$(BIN)/python -m training

clean: ## Remove what was built or cached here (.venv and data stay)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
