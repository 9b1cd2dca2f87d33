# `make` lists all commands. Needs Python 3.11 or later, git and make.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
RUN := $(PY) notebooks/run.py
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

WORKERS ?= 2
JOBS ?= 1
export DICOM MODEL OUT MASKS SEGMENTER NAME IMAGES BUNDLE FORMAT STORE ENCODER IMAGE_SIZE FRESH
export NAMES STAGE
# Containers often set it; then each kernel compiles torch and the rest again, 5 to 10 s each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo smoke experiment ablations predict compare review verify export
.PHONY: speed lab test lint format hooks lock

help:  ## List the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 12

setup: $(READY)  ## Make .venv with the pinned packages (once; 2 to 3 minutes)

demo: $(READY)  ## The whole chain on a synthetic cohort, without a GPU (about half an hour)
	@$(RUN) batch demo

smoke: $(READY)  ## The same chain, tiny, to check that everything runs
	@$(RUN) batch smoke

experiment: $(READY)  ## An experiment by name: make experiment NAME=rsna
	@$(RUN) batch "$$NAME" --jobs $(JOBS)

ablations: $(READY)  ## What each part is worth, with seeds and intervals (hours; JOBS=2 at a time)
	@$(RUN) batch ablations --jobs $(JOBS)

predict: $(READY)  ## A verdict for one study: make predict DICOM=<folder> MODEL=demo
	@$(RUN) predict --dicom "$$DICOM" --model "$$MODEL" --out "$$OUT" \
	  --series "$$SERIES" --masks "$$MASKS" --segmenter "$$SEGMENTER"

compare: $(READY)  ## Which is better? make compare NAMES="demo nocrop" [STAGE=predict]
	@$(RUN) compare --names "$$NAMES" --stage "$${STAGE:-predict}" --out "$$OUT"

review: $(READY)  ## One folder to hand over: make review NAME=demo [OUT=<folder>] [IMAGES=no]
	@$(RUN) review --name "$${NAME:-demo}" --out "$$OUT" --images "$${IMAGES:-yes}"

verify: $(READY)  ## Recompute a review's tables: make verify BUNDLE=runs/demo/review
	@$(PY) -m pekit.review.verify "$${BUNDLE:-runs/$${NAME:-demo}/review}"

export: $(READY)  ## To ONNX or OpenVINO: make export MODEL=demo FORMAT=onnx OUT=<folder>
	@$(RUN) export --model "$$MODEL" --format "$$FORMAT" --out "$$OUT" --store "$$STORE"

speed: $(READY)  ## Stacks per second on this machine: make speed [STORE=<prepared studies>] [OUT=<folder>]
	@$(PY) -m pekit.training.speed --out "$${OUT:-runs/speed}" \
	  $(if $(STORE),--store "$$STORE") $(if $(ENCODER),--encoder "$$ENCODER") \
	  $(if $(IMAGE_SIZE),--image-size "$$IMAGE_SIZE") $(SPEED_OPTIONS)

lab: $(READY)  ## JupyterLab with copies of the notebooks, to run by hand [FRESH=yes: copy anew]
	@$(RUN) lab --fresh "$${FRESH:-no}" --options "$(LAB_OPTIONS)"

# One thread per worker: more would only queue for the same cores.
test: $(READY)  ## All tests (WORKERS=2 at a time)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(TEST_OPTIONS)

lint: $(READY)  ## ruff, and notebooks without outputs
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(if $(NOTEBOOKS),$(VENV)/bin/nbstripout --verify $(NOTEBOOKS))

format: $(READY)  ## Bring code and notebooks into the form that lint asks for
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .
	@$(if $(NOTEBOOKS),$(VENV)/bin/nbstripout $(NOTEBOOKS))

hooks: $(READY)  ## Run lint before each commit, by git
	@$(VENV)/bin/pre-commit install

lock: $(READY)  ## Renew requirements.lock from what is installed
	@head -2 requirements.lock > requirements.lock.new
	@$(PY) -m pip freeze --exclude-editable >> requirements.lock.new
	@mv requirements.lock.new requirements.lock

# .ready is written last: a set-up that was cut off starts again from nothing, and changed
# requirements update the environment.
$(READY): requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed; '$(PYTHON)' is" "$$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV): 2 to 3 minutes, this once"
	@test -f $@ || rm -rf $(VENV)
	@rm -f $@
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-compile \
	  -r requirements.txt -c requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
