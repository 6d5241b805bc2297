# `make` lists the targets. EXP names an experiment, ARGS takes any `key=value` of Hydra, RUN names a run's directory.
VENV ?= .venv
PYTHON ?= python3
EXTRAS ?= dev
EXP ?= digits_dmd2
RUN ?= runs/$(EXP)/latest
ARGS ?=
KILLS ?= 50
VERB ?= train
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(subst $(eval ) ,,$(EXTRAS))
# uv does not read pip's settings; a folder of wheels that pip knows serves it too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

# PyTorch for Linux brings CUDA. Without it, it takes 4.3 GB less: from this index, where no NVIDIA GPU is found, the
# index answers, and nothing else was said of where packages come from.
CPU_INDEX := https://download.pytorch.org/whl/cpu
SAID := $(UV_TORCH_BACKEND)$(UV_INDEX)$(UV_DEFAULT_INDEX)$(UV_INDEX_URL)$(UV_EXTRA_INDEX_URL)$(UV_NO_INDEX)$(UV_OFFLINE)$\
	$(PIP_INDEX_URL)$(PIP_EXTRA_INDEX_URL)$(PIP_NO_INDEX)
TAKES_CPU_WHEELS = test -z "$(SAID)" && test "$$(uname)" = Linux && ! command -v nvidia-smi > /dev/null && timeout 10 \
	$(BIN)/python -c "import urllib.request; urllib.request.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2> /dev/null
INSTALL = $(BIN)/uv pip install -q --python $(BIN)/python $(TORCH) -e '.[$(EXTRAS)]'

.DEFAULT_GOAL := help
.PHONY: help install lint types test docs soak train sweep pretrain pairs prepare sample evaluate export check compare import \
	benchmark health clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  %-10s %s\n", $$1, $$2}'
	@echo; echo "e.g. make train EXP=toy2d_dmd2 ARGS=\"seed=1 max_iterations=500\""

install: $(STAMP) ## set up .venv (any other target does it by itself)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q uv
	@if $(TAKES_CPU_WHEELS); then \
		echo "no NVIDIA GPU is found: PyTorch without CUDA; otherwise: UV_TORCH_BACKEND=auto make install"; \
		UV_TORCH_BACKEND=cpu $(INSTALL) || $(INSTALL); \
	else $(INSTALL); fi
	@touch $@

lint: $(STAMP) ## check style
	$(BIN)/ruff check src tests examples experiments docs/hooks
	$(BIN)/ruff format --check src tests examples experiments docs/hooks

types: $(STAMP) ## check types
	$(BIN)/mypy

test: $(STAMP) ## run the tests
	$(BIN)/pytest $(ARGS)

docs: $(STAMP) ## build the documentation in site/; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

soak: $(STAMP) ## kill VERB (train) KILLS times (50), and compare its end with that of one nobody disturbed
	$(BIN)/pytest tests/test_soak.py --verb $(VERB) --kills $(KILLS) $(ARGS)

train: $(STAMP) ## distil experiment EXP, its teacher first if there is none
	$(BIN)/dmd2 train experiment=$(EXP) $(ARGS)

sweep: $(STAMP) ## train once for each combination: ARGS="seed=0,1,2 critic_updates=1,5", with launcher=slurm as jobs
	$(BIN)/dmd2 train --multirun experiment=$(EXP) $(ARGS)

pretrain: $(STAMP) ## only train the teacher of EXP
	$(BIN)/dmd2 pretrain experiment=$(EXP) $(ARGS)

pairs: $(STAMP) ## only make the noise-image pairs of EXP
	$(BIN)/dmd2 pairs experiment=$(EXP) $(ARGS)

prepare: $(STAMP) ## make data ready: ARGS="recipe=imagenet64 source=DIR out=DIR"
	$(BIN)/dmd2 prepare $(ARGS)

sample: $(STAMP) ## draw samples from RUN: ARGS="num_images=100 out=samples"
	$(BIN)/dmd2 sample run=$(RUN) $(ARGS)

evaluate: $(STAMP) ## score RUN again: ARGS="num_samples=10000"
	$(BIN)/dmd2 evaluate run=$(RUN) $(ARGS)

export: $(STAMP) ## write RUN's text-to-image student as a pipeline of diffusers: ARGS="out=DIR"
	$(BIN)/dmd2 export run=$(RUN) $(ARGS)

check: $(STAMP) ## say again whether RUN is healthy, what is wrong and what to try
	$(BIN)/dmd2 check run=$(RUN) $(ARGS)

compare: $(STAMP) ## one table of many runs: ARGS="runs=runs/sweeps/TIME out=DIR"
	$(BIN)/dmd2 compare $(ARGS)

benchmark: $(STAMP) ## measure a part on this host: ARGS="part=loader source=DIR"
	$(BIN)/dmd2 benchmark $(ARGS)

import: $(STAMP) ## make a file of published weights: ARGS="source=FILE out=FILE.safetensors"
	$(BIN)/dmd2 import $(ARGS)

health: $(STAMP) ## inject faults into small runs and count which are named: ARGS="seeds=0,1,2"
	$(BIN)/python experiments/health/bench.py out=runs/health $(ARGS)

clean: ## remove the environment and caches; runs/ and cache/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist site
