# Every target does its own set-up: .venv is made from requirements.txt, again only when that file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
READY := $(VENV)/.ready
RUN := $(BIN)/python -m
NBVAL := -p tests.nbval_plugin --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval_sanitize.cfg

.DEFAULT_GOAL := help
.PHONY: help distill test test-all test-fast lint lab studio notebooks caches benchmark ablation ladder small large figures clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# On a terminal pip shows what it does; a log would only be filled by it.
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; set -x; \
		$(RUN) pip install $$quiet --disable-pip-version-check --requirement requirements.txt && \
		$(RUN) pip install $$quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

distill: $(READY)  ## the main job: distil the default recipe and judge the result
	$(RUN) kdhelpers distill --overwrite

# Two notebooks at a time with one thread each take less time than one after the other with two.
test: test-all caches  ## everything: all tests, then every notebook compared with its saved outputs
	OMP_NUM_THREADS=1 $(RUN) pytest $(NBVAL) --nbval-cell-timeout=1200 -n 2 --dist loadscope notebooks

test-all: $(READY)  ## every test, without the notebooks
	$(RUN) pytest -n 2 tests

test-fast: $(READY)  ## the same without the slow ones (whole jobs, every family's export), under three minutes
	$(RUN) pytest -n 2 -m "not slow" tests

lint: $(READY)  ## style, types, and how the package is built: imports one way, short functions
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) pytest tests/test_package.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(RUN) jupyter lab --notebook-dir=notebooks

# A default space has 5 GB: PyTorch without CUDA and no pip cache leave two of them. Everything lies below the home
# folder, which outlives a restart of the space. What was interrupted has its room already, and goes on. With a GPU, and more disk: make studio TORCH_INDEX=...
STUDIO ?= $(HOME)/distilling
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
STUDIO_PIP := $(STUDIO)/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check

studio:  ## in SageMaker Studio, in a terminal: a kernel of its own for the notebooks, on 5 GB of disk
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage("$(HOME)").free / 2**30; sys.exit(f"$(HOME) has {free:.1f} GB free, and 3.5 are needed: delete something, or give the space a larger disk") if free < 3.5 and not "$(wildcard $(STUDIO)/pyvenv.cfg)" else None'
	@echo "making $(STUDIO): some minutes, 2.6 GB"
	$(PYTHON) -m venv $(STUDIO)
	$(STUDIO_PIP) --index-url $(TORCH_INDEX) $(shell grep ^torch== requirements.txt)
	$(STUDIO_PIP) --requirement requirements.txt
	$(STUDIO_PIP) --no-deps --editable .
	$(STUDIO)/bin/python -m ipykernel install --user --name distilling --display-name "Distilling BERT"
	$(STUDIO)/bin/python -m kdhelpers doctor
	@echo 'Now open a notebook and choose the kernel "Distilling BERT", at its top right.'

notebooks: caches  ## run every notebook anew and save its outputs
	$(RUN) tests.tools.refresh_notebooks

caches: $(READY)  ## train once what the notebooks read, so that none of their cells trains for long
	$(RUN) kdhelpers doctor --prepare

benchmark: $(READY)  ## seconds of training, from the article's way to ours
	$(RUN) tests.tools.benchmark_training

ablation: $(READY)  ## which part of distillation helps: print and draw the recorded runs
	@mkdir -p images
	$(RUN) kdhelpers ablation --output kdhelpers/experiments/ablation.csv --figure images/ablation.png

ladder: ablation
	@echo "note: make ladder is now called make ablation"

small: $(READY)  ## a 2-layer student in int8: train, export, measure beside the teacher
	@mkdir -p images
	$(RUN) kdhelpers distill --student-layers 2 --epochs 8 --controls none --output runs/small --overwrite
	$(RUN) kdhelpers export runs/small --teacher --format onnx-int8 --output runs/small/teacher-int8 --overwrite
	$(RUN) kdhelpers export runs/small --format onnx --output runs/small/onnx --overwrite
	$(RUN) kdhelpers export runs/small --format onnx-int8 --output runs/small/int8 --overwrite
	$(RUN) kdhelpers export runs/small --format onnx-int8 --vocabulary-of movie-snippets \
		--output runs/small/int8-trimmed --overwrite
	$(RUN) kdhelpers benchmark runs/small --threads 1
	$(RUN) kdhelpers benchmark runs/small --output runs/small/latency.json --figure images/latency.png

large: $(READY)  ## students of 2 and 3 layers and of none from the large teacher: train, export, measure beside it
	$(RUN) kdhelpers distill --recipe movie-snippets-base --augment 2 --student-layers 2 --controls none \
		--output runs/large/2-layers --overwrite
	$(RUN) kdhelpers distill --recipe movie-snippets-base --augment 2 --student-layers 3 --controls none \
		--output runs/large/3-layers --overwrite
	$(RUN) kdhelpers distill --recipe movie-snippets-base --augment 2 --student-layers 0 --controls none \
		--output runs/large/static --overwrite
	$(RUN) kdhelpers export runs/large/2-layers --teacher --format onnx-int8 \
		--output runs/large/2-layers/teacher-int8 --overwrite
	$(RUN) kdhelpers export runs/large/2-layers --format onnx-int8 --vocabulary-of movie-snippets \
		--output runs/large/2-layers/int8 --overwrite
	$(RUN) kdhelpers export runs/large/3-layers --format onnx-int8 --vocabulary-of movie-snippets \
		--output runs/large/3-layers/int8 --overwrite
	$(RUN) kdhelpers export runs/large/static --format numpy --vocabulary-of movie-snippets \
		--output runs/large/static/numpy --overwrite
	$(RUN) kdhelpers benchmark runs/large/2-layers runs/large/3-layers runs/large/static --threads 1 \
		--baseline movie-snippets --output runs/large/latency.json

figures: ablation small  ## draw the README's figures anew
	$(RUN) kdhelpers distill --seed 43 --overwrite  # of three seeds the one with the middle lead
	cp runs/movie-snippets/result.png images/result.png

clean:  ## remove the virtual environment and the runs, not the cache
	rm -rf $(VENV) runs
