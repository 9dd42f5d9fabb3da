# Everything is done through these targets, in CI too. `make serve` and `make test` need nothing before them but Python 3.11 or 3.12.
.DEFAULT_GOAL := help
.SHELLFLAGS := -euo pipefail -c
SHELL := bash
PORT ?= 8000
ENGINE_PORT ?= 30000
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
ENGINE_BIN := .venv-engine/bin
EXTRAS := build/newest-frontend
LOCKED := --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header
UNDER_BOTH := tests/test_contract.py tests/test_stock.py tests/test_running.py tests/test_language.py

.PHONY: help serve test check test-engine test-newest lint lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: .make/run .make/engine  ## serve on 127.0.0.1:PORT (8000), with an engine of our own unless GEMMA3N_RUNTIME_URL names one
	@if [ -n "$${GEMMA3N_RUNTIME_URL:-}" ]; then exec $(BIN)/gemma3n serve --port $(PORT); \
	else exec $(BIN)/gemma3n serve --port $(PORT) --with-engine --engine-port $(ENGINE_PORT); fi

test: check .make/engine test-engine test-newest  ## everything: check, the real engine, the newest frontend

check: .make/dev lint  ## a fast answer: lint, types, tests that need no engine
	@$(BIN)/python -m pytest -q -m "not engine"

test-engine: .make/dev .make/engine
	@$(BIN)/python -m pytest -q -m engine

test-newest: .make/dev .make/engine .make/newest
	@PYTHONPATH="$(CURDIR):$(EXTRAS)" $(ENGINE_BIN)/python -m pytest -q -m "not engine" $(UNDER_BOTH)

lint: .make/dev
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary

.make/python:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or 3.12 is needed and was not found. Install one (Debian: apt install python3.11 python3.11-venv," \
		"macOS: brew install python@3.12), or name it: make PYTHON=/path/to/python3.12 …"; exit 1; fi
	@mkdir -p .make && touch $@

.make/run: requirements.lock pyproject.toml | .make/python
	@echo "Setting up .venv (about half a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . 2>/dev/null || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

.make/dev: requirements-dev.lock .make/run
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.lock
	@touch $@

# Where an engine is named, or has been installed before by the same recipe, this is a matter of a second.
.make/engine: .make/run
	@if [ -z "$${GEMMA3N_RUNTIME_URL:-}$${GEMMA3N_TEST_ENGINE_URL:-}" ]; then $(BIN)/gemma3n engine install; fi

.make/newest: requirements.lock requirements-dev.lock .make/engine
	@rm -rf $(EXTRAS) && $(ENGINE_BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $(EXTRAS) \
		$$(grep -hE '^(av|greenlet|pydub|ssrfguard|httpx|httpcore|h11|anyio|starlette|pytest|iniconfig|pluggy|hypothesis|sortedcontainers|typer)==' \
		requirements.lock requirements-dev.lock | sed 's/ .*//' | sort -u)
	@touch $@

lock: .make/dev  ## renew the locks from pyproject.toml
	@$(BIN)/uv pip compile -q $(LOCKED) pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q $(LOCKED) --group dev -c requirements.lock -o requirements-dev.lock

clean:  ## remove what was set up here, the engine too
	rm -rf .venv .venv-engine .make build *.egg-info
