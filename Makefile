# make run     set up, train and evaluate on the embedded sample, print the report
# make test    set up and run the tests
# make demo    set up, serve the embedded sample's linker, and print the address of its page
# make check   format, lint, types and tests: what a change has to pass
# make torture try for an hour to lose work or get wrong results (docs/reliability.md)

PYTHON ?= python3
VENV ?= .venv
# The reference in parity tests and benchmarks. `make test TORCH=` does without: those tests then use
# the committed reference arrays alone.
TORCH ?= torch==2.13.0
# The pipeline of docs/data.md, "Beyond one machine"; `make test BEAM=` does without its test.
BEAM ?= apache-beam>=2.70,<3
# The object detector's own pair, which on x86-64 Linux brings CUDA (several GB): an environment apart.
DETECTOR ?= torch==2.14.1 torchvision==0.29.1
DETECTOR_VENV ?= .venv-detector
WORKDIR ?= runs/sample
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/run.stamp
DEV_STAMP := $(VENV)/dev.stamp

.PHONY: run demo test torture test-detector check format lint types clean
.DEFAULT_GOAL := run

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; use: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements.txt pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet -e '.[dev]' $(TORCH) $(if $(BEAM),"$(BEAM)")
	@touch $@

run: $(RUN_STAMP)
	$(BIN)/python -m drin_jax.main --config=configs/sample.py --workdir=$(WORKDIR)

$(VENV)/serve.stamp: $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet -e '.[serve]'
	@touch $@

# Opens the page where there is a browser to open it in.
demo: $(VENV)/serve.stamp
	$(BIN)/python -m drin_jax.serve --model=sample --open

test: $(DEV_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Kills, full disks and random input, for about an hour; no part of `make test`.
torture: $(DEV_STAMP)
	$(BIN)/python -m tests.torture --document=docs/reliability.md

$(VENV)/detector.stamp: $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet -e '.[dev]' $(DETECTOR)
	@touch $@

# The detector against torchvision's own pipeline; no part of `make test`.
test-detector:
	@$(MAKE) --no-print-directory VENV=$(DETECTOR_VENV) $(DETECTOR_VENV)/detector.stamp
	$(DETECTOR_VENV)/bin/python -m pytest tests/encoders/detector_parity.py

lint: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV_STAMP)
	$(BIN)/mypy
	$(BIN)/basedpyright

check: lint types test

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf runs .cache .mypy_cache .ruff_cache build *.egg-info
