.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo down test coverage simulate check fmt docs lock wheels

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install the locked environment into .venv

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## run the whole loop on real flights and leave it up
	$(BIN)/contender demo

down: $(READY) ## stop everything that runs
	$(BIN)/contender down

test: $(READY) ## run every test
	$(BIN)/python -m pytest

coverage: $(READY) ## run the unit tests and print the share of lines and branches that they reach
	$(BIN)/python -m pytest --quiet --cov --cov-report=term tests/unit tests/contract

simulate: $(READY) ## simulate the worlds that a verdict must withstand; some five minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.simulate

check: $(READY) ## style, types, layout, dependencies and dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry contender
	$(BIN)/deptry --config stack/pyproject.toml embedded examples services shared
	$(BIN)/vulture --config deploy/vulture.toml

fmt: $(READY) ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## write docs/reference.md, the table of docs/models.md and the OpenAPI files from the code
	PYTHONPATH=. $(BIN)/python deploy/reference.py
	PYTHONPATH=. $(BIN)/python deploy/openapi.py
	PYTHONPATH=. $(BIN)/python deploy/supported.py

wheels: $(READY) ## build the wheels of the library and of the stack into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	$(BIN)/python -m build --wheel --no-isolation --outdir dist stack

COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-emit-trusted-host \
  --no-header --allow-unsafe --strip-extras

lock: ## resolve all versions again, with hashes, naming no index host
	$(COMPILE) --extra dev -o requirements.raw pyproject.toml
	$(BIN)/python deploy/strip_lock.py requirements.raw requirements.lock
	echo 'feast[redis]' | $(COMPILE) -o requirements.raw -
	$(BIN)/python deploy/strip_lock.py requirements.raw tests/contract/feast.lock
	rm requirements.raw
