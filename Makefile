# Needs Python 3.10 or newer and make. Everything is installed into .venv, nothing outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install quickstart reproduce bench test check docs clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Install lit_cls into .venv.

quickstart: $(VENV)/.installed ## Train on synthetic messages, test, classify two texts: no download, a minute.
	$(BIN)/lit_cls fit --config configs/quickstart.yaml
	$(BIN)/lit_cls predict --config configs/quickstart.yaml --ckpt_path best \
		"Winner! Claim your gift card at prizes.example today" "running late, be at the station at 7"

reproduce: $(VENV)/.installed ## Reproduce the published table, three seeds, on a GPU machine. ARGS="--rows 1,16" and so on.
	$(BIN)/lit_cls reproduce $(ARGS)

bench: $(VENV)/.installed-dev ## Measure the speed: published, Hugging Face, plain, fast; 45 minutes, ARGS="--quick" 5.
	$(BIN)/python -m benchmarks.bench $(ARGS)

test: $(VENV)/.installed-dev ## Run the tests that need no GPU, no network and no long time.
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu and not network"

check: $(VENV)/.installed-dev ## Run the linter, the formatter, the type checker and the import test.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(VENV)/.installed-dev ## Rewrite docs/commands from each command's --help.
	$(BIN)/python docs/generate.py

clean: ## Remove .venv and caches; runs in checkpoints/ stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[reports]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed
