# `make demo` and `make test` set everything up by themselves: they need Python 3.11 or later, make and a package index.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every file below the rooms, however deep: a change in any of them builds the wheel anew.
ROOMS := commands runtime train export
SOURCES := $(wildcard *.py) $(shell find $(ROOMS) -type f -not -path "*/__pycache__/*") pyproject.toml
DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.installed

.PHONY: demo test check docs coverage mutants bench bench-compare soak clean

demo: $(INSTALLED)
	$(BIN)/rrtn demo tests/fixtures/bursts

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

check: $(DEPENDENCIES) .types/rrtn docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy -p rrtn.runtime -p rrtn.train -p rrtn.export -p rrtn.commands -m rrtn.cli
	$(BIN)/mypy benchmarks docs examples
	PYTHONPATH=.types $(BIN)/lint-imports --no-cache

# -> site/index.html. --strict: a link without a target, or a page that the menu lacks, is an error.
docs: $(DEPENDENCIES)
	mkdir -p .types/docs  # docs/site_pages.py puts the package there; mkdocstrings wants the folder first
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What benchmarks compare with, behind all that rrtn itself uses.
.peers: $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .peers audinterface==1.4.0 openvino==2026.4.1

# Ten minutes on 2 quiet cores -> benchmarks/results/<date>-<machine>.json, .md, and the table in README.md.
bench: $(INSTALLED) .peers
	$(BIN)/python benchmarks/results.py run

# The newest result against the last one of the same kind of machine, by ratios within each.
bench-compare: $(DEPENDENCIES)
	$(BIN)/python benchmarks/results.py compare

# Then the mutants: about half an hour.
soak: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 3600
	$(MAKE) mutants

# Changes a module in one place at a time, and runs its tests: each should fail. -> docs/mutants.md
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants/run.py

# What the tests run through in this process; what they start as programs does not count.
coverage: $(INSTALLED)
	$(BIN)/coverage run -m pytest -m "not slow" tests/runtime tests/train tests/export
	$(BIN)/coverage report --skip-covered

clean:
	rm -rf build site *.egg-info .types .mypy_cache .ruff_cache .pytest_cache

# 5 GB, most of it the CUDA build of torch, the only one that torchaudio 2.11 works with; it runs on the CPU too.
$(DEPENDENCIES): requirements.lock
	@echo "Installing the dependencies into $(VENV): about 5 GB, 3 to 5 minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

# The tests import this wheel, never the checkout.
$(INSTALLED): $(DEPENDENCIES) $(SOURCES)
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@

.types/rrtn:
	mkdir -p .types && ln -sfn .. .types/rrtn
