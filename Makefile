# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
# Pinned, and installed before anything that would choose another build.
TORCH  ?= torch==2.13.0

# The environment lives outside the clone: the clone is an MLflow model folder, and
# `mlflow models serve -m .` copies the model folder, environment and all.
CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clip-endpoints
VENV   ?= $(CACHE)/$(notdir $(CURDIR))-$(firstword $(shell echo '$(CURDIR)' | cksum))
BIN    := $(VENV)/bin
# Processes that tests run in: one a core, and some 3 GiB each.
WORKERS ?= 2
TWEMOJI := $(CACHE)/twemoji-15.0.0
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint lowest newest bench venv clean

demo: $(VENV)/demo.installed  ## Find, name and compare images behind URLs, in each of the ways there are to ask.
	$(BIN)/python samples/demo.py

test: lint $(TWEMOJI)  ## Everything CI runs.
	TWEMOJI='$(TWEMOJI)/package' $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Images in another hand than the embedded model was trained on. Without npm their test is skipped.
$(TWEMOJI):
	rm -rf $@.part && mkdir -p $@.part
	{ cd $@.part && npm pack --silent --fetch-retries=0 --fetch-timeout=30000 '@twemoji/svg@15.0.0' \
	  && tar -xzf *.tgz && rm *.tgz && mv $@.part $@; } 2> /dev/null \
	  || { rm -rf $@.part; echo 'No Twemoji (npm pack @twemoji/svg): its test is skipped.'; }

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Libraries as old as pyproject.toml allows, and as new as there are: the contract holds on both.
# PyTorch is the pinned one in both, since most of its other builds bring gigabytes of CUDA: that
# older ones work is not tested.
EXTRAS := batch,serve,mlflow
lowest newest: $(VENV)/dev.installed
	$(PYTHON) -m venv --clear $(VENV)-$@
	$(if $(filter lowest,$@),$(BIN)/python .ci/lowest.py $(EXTRAS)) > $(VENV)-$@/constraints.txt
	$(VENV)-$@/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' \
	  --constraint $(VENV)-$@/constraints.txt --editable '.[$(EXTRAS)]' 'pytest>=8.3' 'requests>=2.32'
	$(VENV)-$@/bin/python -m pytest tests/test_contract.py tests/test_tables.py tests/test_server.py \
	  -k 'not azure' -W default -p no:cacheprovider

bench: $(VENV)/dev.installed  ## How fast, beside what a user would write first; to out/bench. An hour.
	$(BIN)/python -m benchmarks.bench

venv: $(VENV)/demo.installed  ## Prints where the environment is.
	@echo $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(TWEMOJI)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.installed: pyproject.toml | $(BIN)/python
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/dev.installed: pyproject.toml | $(BIN)/python
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[dev]'
	# CLIP's vocabulary, and the references: what else they ask for (TensorFlow, torchvision) is not used.
	$(PIP) --no-deps 'open_clip_torch==3.3.0' 'clip_benchmark==1.6.2' 'keras-hub==0.32.0'
	@touch $@
