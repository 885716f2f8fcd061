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

.PHONY: help demo test coverage mutants check docs bench bench-compare soak screens clean

# Plain `make`: installs nothing.
help:
	@echo "make demo           train, export, score and report on synthetic voices: one to three minutes"
	@echo "make test           the tests, on the installed wheel: seven to twelve minutes"
	@echo "make check          style, types, layers, and the site of the pages"
	@echo "make docs           -> site/index.html"
	@echo "make screens        record anew what the commands show (tests/screens), to look at and commit"
	@echo "make bench          every benchmark that needs no GPU: 9 to 16 minutes"
	@echo "make bench-compare  the newest result against the last one of the same kind of machine"
	@echo "make soak           the slow tests, then the mutants: hours"
	@echo "make coverage       which lines no test runs"
	@echo "make mutants        which small mistakes no test sees: an hour or two"
	@echo "make clean          remove what was built; the environment, runs and caches stay"
	@echo
	@echo "The first of them that needs $(VENV) makes it: about 5 GB, 3 to 5 minutes, once."

demo: $(INSTALLED)
	$(BIN)/rrtn demo tests/fixtures/bursts

# Two at a time, each the tests of a file: `make test TESTERS=1` runs them one by one.
TESTERS ?= 2
test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n $(TESTERS) --dist loadfile

# The tests of the modules once more, slower; fails below the floor in pyproject.toml.
coverage: $(INSTALLED)
	$(BIN)/coverage run -m pytest -m "not slow" --timeout 900 tests/runtime tests/train tests/export tests/test_cli.py
	$(BIN)/coverage report

# An hour or two -> benchmarks/results/mutants.md.
mutants: $(DEPENDENCIES)
	$(BIN)/python tests/mutants/run.py

# What a system lacks, typeshed knows: outside of runtime/system/host.py nothing uses it.
MODULES := -p rrtn.runtime -p rrtn.train -p rrtn.export -p rrtn.commands -m rrtn.cli
check: $(DEPENDENCIES) .types/rrtn docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy $(MODULES)
	for system in win32 darwin; do $(BIN)/mypy --platform $$system --no-warn-unreachable $(MODULES) || exit 1; done
	$(BIN)/mypy benchmarks docs examples
	PYTHONPATH=.types $(BIN)/lint-imports --no-cache

# -> site/index.html. --strict: a link without a target, or a page that the menu lacks, is an error.
docs: $(DEPENDENCIES) .types/rrtn
	mkdir -p .types/docs  # docs/site_pages.py puts the package there; mkdocstrings wants the folder first
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	PYTHONPATH=.types RRTN_SITE=$(CURDIR)/site $(BIN)/python -m pytest -q --durations 0 -p no:cacheprovider -m slow tests/docs/test_site.py

# What benchmarks compare with, behind all that rrtn itself uses.
.peers: $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .peers audinterface==1.4.0 openvino==2026.4.1 mnn==3.6.1 ncnn==1.0.20261020 pnnx==20261020

# A real Triton for the slow tests (tests/parity/test_triton_server.py), and what its clients need. Its Python backend needs NumPy 1.
TRITON_PIP := .triton/bin/python -m pip install --quiet --disable-pip-version-check
.triton:
	$(PYTHON) -m venv $@
	$(TRITON_PIP) --no-deps nvidia-pytriton==0.7.0
	$(TRITON_PIP) onnxruntime "tritonclient[http]" "numpy>=2" soundfile soxr msgspec
	$(TRITON_PIP) --target $@/numpy-1 "numpy<2"

# The models that are measured, with random weights. To make them takes minutes, and is no part of the measurement.
.bundles: $(INSTALLED) .peers benchmarks/random_bundle.py
	rm -rf $@
	$(BIN)/python benchmarks/random_bundle.py $@
	touch $@

# Ten minutes on 2 quiet cores -> benchmarks/results/<date>-<machine>.json, .md, and the table in README.md.
bench: .bundles
	$(BIN)/python benchmarks/results.py run

# The newest result against the last one of the same kind of machine, by ratios within each.
bench-compare: $(DEPENDENCIES)
	$(BIN)/python benchmarks/results.py compare

soak: $(INSTALLED) .triton
	$(BIN)/python -m pytest -m slow --timeout 3600
	$(MAKE) mutants

screens: $(INSTALLED)
	RRTN_RECORD_SCREENS=1 $(BIN)/python -m pytest tests/screens -m "slow or not slow"

BUILT := build site *.egg-info .types .mypy_cache .ruff_cache .pytest_cache

clean:
	rm -rf $(BUILT)
	@echo "Left: $(VENV) (about 5 GB), .peers and .triton, which installing takes minutes; runs/, which are yours;"
	@echo "and the cache of decoded clips, $${RRTN_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/rrtn}. Remove them by hand."

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
