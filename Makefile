# PRISM: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINE ?= $(notdir $(firstword $(shell command -v docker podman 2>/dev/null)))
# (podman's own format has no HEALTHCHECK: see --format below)
IMAGES := ingestor model-worker merger cli
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' shared/pyproject.toml)
DISTRIBUTIONS := shared services/ingestor services/model-worker services/merger embedded cli

.DEFAULT_GOAL := help
.PHONY: help install demo test up lint format bench chaos images schemas queries screens lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with every command (called by the others)

$(VENV)/.installed: requirements.lock $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "PRISM needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 3; }
	@echo "Installing PRISM into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

demo: install ## Start the embedded fleet, annotate the example, show the output, stop
	@$(BIN)/python -m prism_cli demo

up: install ## Start a local fleet in the foreground (Ctrl-C stops it)
	@$(BIN)/prism up

test: install ## Run every test that needs no GPU (chaos and benchmarks apart)
	@$(BIN)/python -m pytest -m "not chaos" -n 2 --dist loadfile --no-loadscope-reorder

chaos: install ## Run the long fault tests: kills, stops, outages, lost volumes
	@$(BIN)/python -m pytest -m chaos

bench: install ## Measure throughput, saturation, memory and recovery; print a table, write JSON
	@$(BIN)/python -m benchmarks

lint: install ## Check format, style, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

images: ## Build the container images, prism-…:VERSION (needs docker or podman)
	@[ -n "$(ENGINE)" ] || { echo "make images: there is no docker and no podman; install one, or name one: make images ENGINE=…" >&2; exit 3; }
	@$(ENGINE) version >/dev/null 2>&1 || { echo "make images: $(ENGINE) has no engine that answers; start it ($(ENGINE) version says more)" >&2; exit 4; }
	@set -e; for one in $(IMAGES); do \
	  file=services/$$one/Dockerfile; [ -f $$file ] || file=$$one/Dockerfile; \
	  $(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) -f $$file -t prism-$$one:$(VERSION) --build-arg VERSION=$(VERSION) \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .; \
	done

format: install ## Rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

schemas: install ## Write what is generated: docs/schemas, reference pages, .env.example, dashboards, rules
	@$(BIN)/python -m tools.reference

queries: install ## Write docs/dashboard-queries.md: what a real fleet answers the dashboards
	@PRISM_WRITE_DASHBOARD_QUERIES=1 $(BIN)/python -m pytest -q tests/integration/test_monitoring.py

screens: install ## Take the pictures in docs/screens of the dashboard and the runner (needs tmux)
	@$(BIN)/python -m tools.screens
	@$(BIN)/python -m tools.runner_screens

lock: install ## Pin every dependency again, with hashes
	@$(BIN)/python tools/lock.py --upgrade

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
