# telegrad: everything here sets itself up; a second call is quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The torch that the checks are pinned to. On a machine with a GPU the normal build is taken, else the CPU build.
TORCH := torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint slow fuzz fuzz-flower docs gpu clean help

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: $(STAMP)  ## a virtual environment in .venv with torch, telegrad and its tools

$(STAMP): pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first, so that nothing that needs torch brings a larger build. The plain name may already be a CPU build.
	$(BIN)/python -c "import torch" 2>/dev/null || { \
	  if command -v nvidia-smi >/dev/null 2>&1; then $(BIN)/pip install -q $(TORCH); \
	  else $(BIN)/pip install -q "$(TORCH)+cpu" --extra-index-url $(TORCH_CPU_INDEX) 2>/dev/null || $(BIN)/pip install -q $(TORCH); fi; }
	$(BIN)/pip install -q -e ".[lab,dev,docs,accelerate,lightning,flower]"
	@touch $(STAMP)

demo: setup  ## compare six methods on real data: a table, plots and a report in runs/demo
	OMP_NUM_THREADS=1 $(BIN)/telegrad compare --out runs/demo

lint: setup  ## style, types and the direction of imports
	$(BIN)/ruff check src tests docs/_site
	$(BIN)/ruff format --check src tests docs/_site
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint and all tests but the slow ones
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

slow: setup  ## the slow tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

fuzz: setup  ## a million nearly right messages: only WireError may come of them, and all forms of a loop must agree
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.pytest_cache/bounds-checked OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py

fuzz-flower: setup  ## a hundred thousand nearly right messages of a client of Flower: rounds must go on
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.pytest_cache/bounds-checked OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz_flower.py

docs: setup  ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

gpu: setup  ## on a machine with a GPU: the kernels compiled for it, compared with the CPU's byte for byte, and timed
	$(BIN)/python -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'torch finds no GPU here')"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/kernels/test_triton.py
	$(BIN)/telegrad bench encode --device cuda
	$(BIN)/telegrad bench decode --device cuda

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
