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
.PHONY: help distill test test-fast lint lab notebooks caches benchmark ablation ladder small figures clean

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

test: test-fast caches  ## everything: unit tests, then every notebook compared with its saved outputs
	$(RUN) pytest $(NBVAL) --nbval-cell-timeout=600 notebooks

test-fast: $(READY)  ## the tests without the notebooks, under three minutes
	$(RUN) pytest -n 2 tests

lint: $(READY)  ## style, types, and how the package is built: imports one way, short functions
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) pytest tests/test_package.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(RUN) jupyter lab --notebook-dir=notebooks

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

figures: ablation small distill  ## draw the README's figures anew
	cp runs/movie-snippets/result.png images/result.png

clean:  ## remove the virtual environment and the runs, not the cache
	rm -rf $(VENV) runs
