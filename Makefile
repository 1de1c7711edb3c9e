# Everything happens in .venv. Needs Python 3.11 or newer with pip, and make; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_TRAINING := $(VENV)/.installed-training
INSTALLED_AUDIT := $(VENV)/.installed-audit

# Of make test: processes that share the test files among them.
PROCESSES ?= logical

# Of make train, make evaluate and make fuzz.
MINUTES ?= 60
RANKS ?= 2
MODEL ?= models/small

# Of make chaos.
SECONDS ?= 60
SEED ?= 1

ARGS ?=

.PHONY: help install install-dev run demo test lint fuzz lock audit sbom licences train evaluate k8s e2e-containers exact chaos clean

help:
	@echo 'make run          install, then run the service on http://127.0.0.1:9527 (Ctrl-C stops it)'
	@echo 'make demo         install, translate a few sentences, stop'
	@echo 'make test         install what the tests need, then run all of them'
	@echo 'make install      only install, into $(VENV)'
	@echo 'make train        train the small model again (MINUTES=60 RANKS=2), into runs/small/checkpoint'
	@echo 'make evaluate     score a checkpoint (MODEL=models/small)'
	@echo 'make k8s          render k8s/deployment.yaml; make e2e-containers tries the images under load'
	@echo 'make exact        hold the engine to transformers on 2,000 cases'
	@echo 'make chaos        hurt every process under load and check every answer (SECONDS=60 SEED=1)'
	@echo 'make fuzz         an hour of hostile requests against real processes (MINUTES=60)'
	@echo 'make lock         pin what the images install; make audit, sbom, licences look at it'
	@echo 'make clean        remove $(VENV) and what tools have cached'

install: $(INSTALLED)
install-dev: $(INSTALLED_DEV)

# Debian keeps venv's pip in a package of its own (python3-venv). Without it the environment is made
# bare, and the pip that is there installs into it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Dragoman needs Python 3.11 or newer; $(PYTHON) is not. Try: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --quiet --quiet --disable-pip-version-check --python $(BIN)/python install pip; } || { \
	  rm -rf $(VENV); \
	  echo 'Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv python3-pip' >&2; exit 1; }

# A stamp that is newer than pyproject.toml means that there is nothing to install.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo 'Installing Dragoman into $(VENV) ...'
	@$(PIP) install --editable '.[api,cpu,documents,embedded]'
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	@echo 'Installing Dragoman and its tests into $(VENV) (PyTorch is large: some minutes the first time) ...'
	@$(PIP) install --editable '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_TRAINING): pyproject.toml | $(BIN)/python
	@echo 'Installing what training needs into $(VENV) ...'
	@$(PIP) install --editable '.[worker,training]'
	@touch $@

$(INSTALLED_AUDIT): pyproject.toml | $(BIN)/python
	@echo 'Installing what looks after the dependencies into $(VENV) ...'
	@$(PIP) install --editable '.[audit]'
	@touch $@

run: install
	@$(BIN)/dragoman up

demo: install
	@$(BIN)/dragoman demo

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/pytest --numprocesses $(PROCESSES) --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder

# Hostile requests for an hour; the tests do it for some seconds.
fuzz: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.security.fuzz --minutes $(MINUTES) $(ARGS)

# The data is rebuilt from its public source and checked against its digest.
data/test.tsv.gz: $(INSTALLED_TRAINING)
	$(BIN)/python -m models.training.sentences --out data

runs/tokenizer/vocab.json: data/test.tsv.gz
	$(BIN)/python -m models.training.tokenizer --data data --out runs/tokenizer

train: runs/tokenizer/vocab.json
	$(BIN)/python -m models.training.train --data data --tokenizer runs/tokenizer --out runs/small \
	  --minutes $(MINUTES) --ranks $(RANKS) $(ARGS)
	$(BIN)/python -m models.training.package --run runs/small --out runs/small/checkpoint

evaluate: data/test.tsv.gz
	$(BIN)/python -m models.training.evaluate --model $(MODEL) $(ARGS)

exact: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.exact --cases 2000

# A seed makes the same faults again. ARGS: python -m tests.chaos --help.
chaos: install-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) $(ARGS)

# What the images install, with hashes, for every platform. CUDA's image is not among them: which
# PyTorch it takes depends on the driver. Versions only change with UPGRADE=--upgrade.
LOCKS := $(patsubst %,requirements/%.lock,api cpu documents)
UPGRADE ?=
lock: $(INSTALLED_AUDIT)
	@for extra in api cpu documents; do \
	  $(BIN)/uv pip compile --quiet pyproject.toml --extra $$extra --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url $(UPGRADE) \
	    --output-file requirements/$$extra.lock >/dev/null || exit 1; done

# Known holes in what is locked. Needs the advisory service of the public package index.
audit: $(INSTALLED_AUDIT)
	@for lock in $(LOCKS); do \
	  $(BIN)/pip-audit --strict --disable-pip --progress-spinner off --requirement $$lock || { \
	    echo "$$lock has known holes, or could not be compared: see above. Where the advisory" \
	         'service cannot be reached nothing has been audited.' >&2; exit 1; }; done

# Software bills of materials (CycloneDX).
sbom: $(INSTALLED_AUDIT)
	@mkdir -p build/sbom
	@for lock in $(LOCKS); do \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	    --output-file build/sbom/$$(basename $$lock .lock).json $$lock || exit 1; done
	@ls build/sbom/*.json

# docs/licences.md; a licence that is not in the list of the module is refused.
licences: $(INSTALLED_DEV) $(INSTALLED_AUDIT)
	$(BIN)/python -m tests.security.licences --write

# k8s/deployment.yaml is what the dev overlay renders to; a test keeps the two equal.
k8s: install-dev
	$(BIN)/python -m tests.deployment.rendered

# Builds the images and hurts the containers under load; needs a Docker engine that can be started.
e2e-containers: install-dev
	$(BIN)/python -m tests.deployment.e2e

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
