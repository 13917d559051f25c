# Every target sets itself up: an environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test check bench bench-serve bench-serve-memory attack clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   train, prove and ask a judge on the shipped examples, offline"
	@echo "make test   everything CI runs: style, types, import contracts, tests"
	@echo "make check  style, types and import contracts only"
	@echo "make bench-serve  measure a server under load: latency, throughput, ten times too much; make bench-serve-memory: its memory over 200,000 requests"
	@echo "make attack  20,000 generated requests against a server, and 200 kills under load"
	@echo "make bench  measure speed and quality (needs the labelled data beside the project; see benchmarks/README.md)"

$(VENV)/run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("snapjudge needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch numpy
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,llm,serve]'
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,llm,serve,dev]'
	@touch $@

demo: $(VENV)/run
	$(BIN)/snapjudge demo --out judges

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile  # a process for each core, one thread each; those of tests that want two do not spin

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.run

bench-serve: $(VENV)/dev
	$(BIN)/python -m benchmarks.serve

bench-serve-memory: $(VENV)/dev
	$(BIN)/python -m benchmarks.serve_memory

attack: $(VENV)/dev
	$(BIN)/python -m benchmarks.attack_schema
	$(BIN)/python -m benchmarks.attack_kill

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
