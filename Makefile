# make run     set up, train and evaluate on the embedded sample, print the report
# make test    set up and run the tests
# make demo    set up, serve the embedded sample's linker, and print the address of its page
# make check   format, lint, types and tests: what a change has to pass
# make docs    build the site into build/site; make docs-test runs every page's blocks
# make release build the package, and try it in fresh environments; make test-oldest tests with the
#              oldest versions of everything that it may be installed with
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
# Of `make release`: interpreters, or versions that uv finds or fetches.
PYTHONS ?= 3.11 3.12 3.13
TRIED_IN = build/release/$(subst /,_,$(TRIED))
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/run.stamp
DEV_STAMP := $(VENV)/dev.stamp

.PHONY: run demo test torture test-detector test-oldest docs docs-test release try-release check format lint types clean
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

# The site works without a network: `python -m http.server -d build/site`.
$(VENV)/docs.stamp: $(RUN_STAMP)
	@$(BIN)/python -m pip install --quiet -e '.[docs,serve]' || \
	  { echo "error: the extra docs could not be installed; the pages are Markdown in docs/"; exit 1; }
	@touch $@

docs: $(VENV)/docs.stamp
	$(BIN)/python -m docs.reference.make
	$(BIN)/python -m zensical build --strict --clean

# Every page's commands and Python, from top to bottom, each page in an empty folder.
docs-test: $(DEV_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m documents tests/documents_test.py tests/site_test.py

# The package, checked, installed into fresh environments, and README and the tutorial run there.
release: $(DEV_STAMP)
	rm -rf build/release dist
	$(BIN)/python -m build --quiet --outdir dist .
	$(BIN)/twine check --strict dist/*
	@for version in $(PYTHONS); do $(MAKE) --no-print-directory try-release TRIED=$$version || exit 1; done

try-release:
	$(BIN)/uv venv --quiet --seed --python $(TRIED) $(TRIED_IN)
	$(BIN)/uv pip install --quiet --python $(TRIED_IN)/bin/python "$$(echo dist/*.whl)[serve]"
	DRIN_INSTALLED=$(TRIED_IN) $(BIN)/python -m pytest -m documents tests/documents_test.py

# The suite with the oldest versions that requirements.txt allows; `make test` takes the newest.
test-oldest: $(BIN)/python
	$(BIN)/python -m pip install --quiet 'uv>=0.5'
	$(BIN)/uv venv --quiet --seed --allow-existing --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct \
	  -e '.[index,serve,postgres]'
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python -e '.[dev]'
	.venv-oldest/bin/python -m pytest $(PYTEST_ARGS) -W default  # old versions warn of each other

# The versions that are installed here, and so were tested: `pip install -r requirements.lock`.
requirements.lock: requirements.txt pyproject.toml
	@mkdir -p build
	$(BIN)/uv pip freeze --quiet --python $(BIN)/python --exclude-editable > build/tested.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra serve --extra index \
	  --constraint build/tested.txt --no-annotate --no-header --output-file $@ pyproject.toml

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
	rm -rf runs .cache .mypy_cache .ruff_cache build dist *.egg-info
