# Flexway: `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help venv demo test days fuzz lint bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP) ## make .venv from the hash-locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Flexway needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## a summer day on one feeder, over sockets: make demo ARGS="--seed 7"
	$(BIN)/flexway demo $(ARGS)

test: venv ## all tests; installs mosquitto, redis, postgresql, chromium, strace by apt when missing
	bash scripts/services.sh mosquitto redis-server postgresql chromium strace
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

days: venv ## twenty seeds of the day in virtual time, judged against the truth: make days ARGS="21 40"
	$(BIN)/python -m tests.days $(ARGS)

fuzz: venv ## a million generated and mutated frames over all codecs; for each: make fuzz ARGS="--each"
	$(BIN)/python -m tests.fuzz $(ARGS)

lint: venv ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv ## benchmarks beside their references; writes build/bench.json
	bash scripts/services.sh mosquitto redis-server postgresql
	$(BIN)/python -m tests.bench $(ARGS)

lock: ## lock the dependencies with hashes, without addresses (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url pyproject.toml -o requirements/runtime.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt

clean: ## remove what was made
	rm -rf $(VENV) build report .mypy_cache .ruff_cache .pytest_cache .hypothesis
