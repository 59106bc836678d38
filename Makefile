# Every target does its own set-up: .venv is made from requirements.txt, again only when that file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
READY := $(VENV)/.ready
RUN := $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help distill test test-fast lab notebooks benchmark ladder small figures lint clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(RUN) pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

distill: $(READY)  ## the main job: distil the default recipe and judge the result
	$(RUN) kdhelpers distill --overwrite

test: $(READY)  ## everything: unit tests, traps, every notebook compared with its saved outputs
	$(RUN) pytest -n 2 tests
	$(RUN) pytest -p tests.nbval_plugin --nbval --nbval-current-env \
		--nbval-sanitize-with=tests/nbval_sanitize.cfg --nbval-cell-timeout=600 notebooks

test-fast: $(READY)  ## the tests without the notebooks, under three minutes
	$(RUN) pytest -n 2 tests

lab: $(READY)  ## open the notebooks in JupyterLab
	$(RUN) jupyter lab --notebook-dir=notebooks

notebooks: $(READY)  ## run every notebook anew and save its outputs
	$(RUN) tests.refresh_notebooks

benchmark: $(READY)  ## seconds of training, from the article's way to ours
	$(RUN) kdhelpers benchmark training

ladder: $(READY)  ## which part of distillation helps: print and draw the recorded runs
	@mkdir -p images
	$(RUN) kdhelpers ladder --output kdhelpers/ladder.csv --figure images/ladder.png

small: $(READY)  ## a 2-layer student in int8: train, export, measure beside the teacher
	@mkdir -p images
	$(RUN) kdhelpers distill --student-layers 2 --epochs 8 --no-control --output runs/small --overwrite
	$(RUN) kdhelpers export runs/small/student --format onnx --output runs/small/onnx --overwrite
	$(RUN) kdhelpers export runs/small/student --format onnx-int8 --output runs/small/int8 --overwrite
	$(RUN) kdhelpers export runs/small/student --format onnx-int8 --vocabulary-of movie-snippets \
		--output runs/small/int8-trimmed --overwrite
	$(RUN) kdhelpers benchmark inference runs/small --threads 1
	$(RUN) kdhelpers benchmark inference runs/small --output runs/small/latency.json \
		--figure images/latency.png

figures: ladder small  ## draw the README's figures anew
	$(RUN) kdhelpers distill --overwrite
	cp runs/movie-snippets/result.png images/result.png

lint: $(READY)  ## style
	$(RUN) ruff check .
	$(RUN) ruff format --check .

clean:  ## remove the virtual environment and the runs, not the cache
	rm -rf $(VENV) runs
