# Everything is done through these targets, in CI too. `make serve` and `make test` need nothing before them but Python 3.11 or 3.12.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled tests are kept from run to run: to compile them anew takes as long as to run them.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
PORT ?= $(or $(GEMMA3N_PORT),8000)
ENGINE_PORT ?= 30000
TORCH_INDEX ?=
BIN := .venv/bin
ENGINE_BIN := .venv-engine/bin
EXTRAS := build/newest-frontend
LOCKED := --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header
UNDER_BOTH := tests/test_contract.py tests/test_stock.py tests/test_running.py tests/test_language.py
# What the engine's environment lacks of the client's packages; whatever else is there stays at the engine's version.
CLIENT_ONLY := av|greenlet|httptools|hypothesis|iniconfig|pluggy|pydub|pytest|pytest-timeout|sortedcontainers|ssrfguard

.PHONY: help serve test check test-slow test-engine test-newest lint engine bench bench-check bench-peers demo-model image-check lock clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: .venv/.run  ## serve on 127.0.0.1:PORT (8000), with an engine of its own on ENGINE_PORT (30000) unless GEMMA3N_RUNTIME_URL names one
	@if [ -n "$${GEMMA3N_RUNTIME_URL:-}" ]; then exec $(BIN)/gemma3n serve --port $(PORT); fi; \
	$(BIN)/gemma3n engine install $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)); exec $(BIN)/gemma3n serve --port $(PORT) --with-engine --engine-port $(ENGINE_PORT)

test: check test-slow test-engine test-newest  ## everything: check, then what takes longer, the real engine, and the newest frontend

check: lint  ## a fast answer: lint, types, and the tests that need neither an engine nor patience
	@$(BIN)/python -m pytest -q -n 4 --dist worksteal --hypothesis-profile=brief -m "not engine and not slow"

test-slow: .venv/.dev
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m "(slow or hypothesis) and not engine"

test-engine: .venv/.dev engine
	@$(BIN)/python -m pytest -m engine

test-newest: $(EXTRAS)/.whole
	@PYTHONPATH="$(CURDIR):$(EXTRAS):gemma3n_sgl/engine/cpu" $(ENGINE_BIN)/python -m pytest -m "not engine" $(UNDER_BOTH)

lint: .venv/.dev
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/shellcheck tools/*.sh .ci/run

# The stamps lie in the environments, so that they go with them; a setup that was broken off has none, and is taken up again.
.venv/.run: requirements.lock
	@tools/venv.sh .venv "$(PYTHON)"
	@echo "Setting up .venv (about half a minute)"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	@echo "Adding what tests need (about half a minute)"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@

engine: .venv/.run
	@$(BIN)/gemma3n engine install --device cpu $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

$(EXTRAS)/.whole: Makefile requirements-dev.lock .venv/.dev | engine
	@rm -rf $(EXTRAS)
	@grep -E '^($(CLIENT_ONLY))==' requirements-dev.lock | sed 's/[ \\].*//' | \
		$(ENGINE_BIN)/python -m pip install -q --no-deps --target $(EXTRAS) -r /dev/stdin
	@touch $@

bench: .venv/.dev  ## what a relayed token and an idle server cost, without an engine
	@$(BIN)/python bench/relay.py
	@$(BIN)/python bench/idle.py

bench-check: .venv/.dev  ## in half a minute: whether a token still costs what it should, as a ratio to a bare pass-through in the same run
	@$(BIN)/python bench/relay.py --rounds 1 --limit inf

bench-peers: .venv/.dev  ## ours beside sglang-router, Hayhooks, LiteLLM and SGLang's own frontend, written into docs/performance.md: ten minutes
	@$(BIN)/python bench/peers.py --write

demo-model: engine  ## train a small model anew: two hours of two cores, and espeak-ng (apt-get install espeak-ng fonts-dejavu fonts-liberation fonts-freefont-ttf)
	@PYTHONPATH=tools:gemma3n_sgl/engine/cpu $(ENGINE_BIN)/python -m demo_model $(FLAGS)

image-check: .venv/.dev  ## lint, build and run the image for real, and ask it something (Docker, or buildah as root)
	@tools/image_check.sh

lock: .venv/.dev  ## choose the newest versions that pyproject.toml allows, for both Pythons, with their hashes
	@$(BIN)/uv pip compile -q $(LOCKED) pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q $(LOCKED) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock

clean:  ## remove caches and what was built
	rm -rf build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache

distclean: clean  ## remove the environments too, the engine's included
	rm -rf .venv .venv-engine
