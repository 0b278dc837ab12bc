# The two main commands: `make demo` and `make test`.

PYTHON ?= python3
# Pinned, and installed first, so that no dependency installs another build.
TORCH  ?= torch==2.13.0
REFERENCES := 'open_clip_torch==3.3.0' 'timm==1.0.31' 'clip_benchmark==1.6.2'

# The virtual environment is outside the clone: the clone is an MLflow model folder, which
# `mlflow models serve -m .` copies as a whole.
CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clip-endpoints
VENV   ?= $(CACHE)/$(notdir $(CURDIR))-$(firstword $(shell echo '$(CURDIR)' | cksum))
BIN    := $(VENV)/bin
# Test processes: one per core, of about 3 GiB each.
WORKERS ?= 2
# Coverage is measured by sys.monitoring where Python has it (3.12): traces cost more. COVERAGE= is without.
COVERAGE ?= --cov
SYSMON  := $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 12) and print("COVERAGE_CORE=sysmon")')
TWEMOJI := $(CACHE)/twemoji-15.0.0
AZURITE := $(CACHE)/azurite-3.37.0
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-fast lint style lowest newest docs reference bench bench-server venv clean

demo: $(VENV)/demo.installed  ## Embed, search and classify images by URL, and compare all interfaces.
	$(BIN)/python samples/demo.py

# mypy runs beside the tests, which do not keep the cores busy while they wait; what it says comes last.
test: style $(TWEMOJI) $(AZURITE)  ## Lint and all tests, as CI runs them. Fails below the coverage that pyproject.toml asks for.
	@mkdir -p out
	$(BIN)/mypy > out/mypy.txt 2>&1 & types=$$!; \
	TWEMOJI='$(TWEMOJI)/package' AZURITE='$(AZURITE)/node_modules' $(SYSMON) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(COVERAGE); \
	tests=$$?; wait $$types; types=$$?; cat out/mypy.txt; exit $$(( tests ? tests : types ))

test-fast: $(VENV)/dev.installed  ## What one runs while working: no real processes, no references.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not process and not reference'

# Emoji in another style than the embedded model's training images. Without npm their test is skipped.
$(TWEMOJI):
	rm -rf $@.part && mkdir -p $@.part
	{ cd $@.part && npm pack --silent --fetch-retries=0 --fetch-timeout=30000 '@twemoji/svg@15.0.0' \
	  && tar -xzf *.tgz && rm *.tgz && mv $@.part $@; } 2> /dev/null \
	  || { rm -rf $@.part; echo 'No Twemoji (npm pack @twemoji/svg): its test is skipped.'; }

# Stands in for Azure Blob Storage. Without npm its tests are skipped.
$(AZURITE):
	rm -rf $@.part
	npm install --silent --no-fund --no-audit --fetch-retries=0 --prefix $@.part 'azurite@3.37.0' > /dev/null 2>&1 \
	  && mv $@.part $@ || { rm -rf $@.part; echo 'No Azurite (npm): its tests are skipped.'; }

lint: style
	$(BIN)/mypy

style: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Libraries as old as pyproject.toml allows, and as new as there are: the contract holds on both.
# PyTorch is the pinned one in both, since most of its other builds bring gigabytes of CUDA: that
# older ones work is not tested.
CONTRACT  := tests/contract/test_contract.py tests/tables/test_tables.py tests/serve/test_server.py \
  tests/serve/test_connections.py tests/serve/test_shutdown.py tests/serve/test_request_log.py tests/serve/test_tracing.py
SERVING   := batch,serve,mlflow,evaluate,azure,collect,trace
PACKAGING := evaluate,package,openvino,int8
EXTRAS    := batch,serve,mlflow,trace
IN_LOWEST := $(VENV)-lowest/bin/python -m
IN_NEWEST := $(VENV)-newest/bin/python -m

# The lowest versions for some extras, then tests that use them. Bytecode is written when it is used,
# not for all of each library, which takes minutes.
define at_lowest
	$(BIN)/python .ci/lowest.py $(1) > $(VENV)-lowest/constraints.txt
	$(IN_LOWEST) pip install --quiet --disable-pip-version-check --no-compile '$(TORCH)' \
	  --constraint $(VENV)-lowest/constraints.txt --constraint .ci/transitive.txt \
	  --editable '.[$(1)]' 'pytest>=8.3' 'pytest-xdist>=3.6' 'requests>=2.32'
	$(2)
	$(IN_LOWEST) pytest -n $(WORKERS) --dist loadfile -W default -p no:cacheprovider -m 'not slow' $(3)
endef

# Packaging comes second, in the same environment: it wants later tokenizers and safetensors. The
# tests of `score evaluate` compare with open_clip and CLIP_benchmark.
lowest: $(VENV)/dev.installed
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(call at_lowest,$(SERVING),,$(CONTRACT) tests/deploy/test_azure_check_accepted.py \
	  tests/entry/test_collector.py)
	$(call at_lowest,$(PACKAGING),$(IN_LOWEST) pip install --quiet --disable-pip-version-check \
	  --no-deps $(REFERENCES),tests/model/test_probes.py tests/model/test_engines.py \
	  tests/evaluation/test_evaluate.py)

newest: $(VENV)/dev.installed
	$(PYTHON) -m venv --clear $(VENV)-newest
	$(IN_NEWEST) pip install --quiet --disable-pip-version-check --no-compile '$(TORCH)' \
	  --editable '.[$(EXTRAS)]' 'pytest>=8.3' 'pytest-xdist>=3.6' 'requests>=2.32'
	TESTS_WITHOUT_AZURE_SERVER=1 $(IN_NEWEST) pytest -n $(WORKERS) --dist loadfile $(CONTRACT) \
	  -k 'not azure' -W default -p no:cacheprovider

reference: $(VENV)/dev.installed  ## Rewrites docs/reference/ from the code.
	$(BIN)/python -m docs.generator

docs: $(VENV)/dev.installed  ## The documentation site, strictly: to out/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/dev.installed  ## Benchmarks against the obvious code, into out/bench. Takes an hour.
	$(BIN)/python -m benchmarks.bench

bench-server: $(VENV)/dev.installed  ## The server under load of all kinds, into out/bench-server. Takes an hour and a half.
	$(BIN)/python -m benchmarks.server

venv: $(VENV)/demo.installed  ## Prints where the environment is.
	@echo $(VENV)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(TWEMOJI) $(AZURITE)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.installed: pyproject.toml | $(BIN)/python
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/dev.installed: pyproject.toml | $(BIN)/python
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[dev]'
	# CLIP's vocabulary and the reference implementations; their other dependencies (TensorFlow, torchvision)
	# are not used.
	$(PIP) --no-deps $(REFERENCES) 'keras-hub==0.32.0'
	@touch $@
