.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo down test check fmt docs lock

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install the locked environment into .venv

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## run the whole loop on real flights and leave it up
	$(BIN)/contender demo

down: $(READY) ## stop everything that runs
	$(BIN)/contender down

test: $(READY) ## run every test
	$(BIN)/python -m pytest

check: $(READY) ## style, types and layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## write docs/reference.md, the table of docs/models.md and the OpenAPI files from the code
	PYTHONPATH=. $(BIN)/python deploy/reference.py
	PYTHONPATH=. $(BIN)/python deploy/openapi.py
	PYTHONPATH=. $(BIN)/python deploy/supported.py

COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-emit-trusted-host \
  --no-header --allow-unsafe --strip-extras

lock: ## resolve all versions again, with hashes, naming no index host
	$(COMPILE) --extra dev -o requirements.raw pyproject.toml
	$(BIN)/python deploy/strip_lock.py requirements.raw requirements.lock
	echo 'feast[redis]' | $(COMPILE) -o requirements.raw -
	$(BIN)/python deploy/strip_lock.py requirements.raw tests/contract/feast.lock
	rm requirements.raw
