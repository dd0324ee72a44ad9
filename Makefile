# `make demo`, `make test` and `make check` set up .venv first; they need Python >= 3.11, make and a package index.
# PYTHON=python3.12 chooses another interpreter. An index configured for pip is used by uv as well.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

# uv reads neither pip's environment nor its files. The lock file's hashes make a second index harmless.
PIP_INDEX := $(or $(PIP_INDEX_URL),$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null))
ifneq ($(PIP_INDEX),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX)
endif
ifneq ($(PIP_EXTRA_INDEX_URL),)
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
export UV_INDEX_STRATEGY ?= unsafe-best-match
endif
ifneq ($(PIP_CERT),)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

# Where Python may not keep compiled modules, every process of a sweep or test compiles torch and diffusers for 20 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick cluster-check chaos check gpu-check format lock clean

help:
	@echo "make demo    run the demo sweep on this machine: no network, no GPU, no data"
	@echo "make test    run the tests, on all cores"
	@echo "make test-quick    run those that need neither Ray nor long"
	@echo "make cluster-check    all that is tried on two hosts of a cluster, also those that fail; minutes, as root on Linux"
	@echo "make chaos   break sweeps in thirteen ways, go on with them and check that nothing is lost; hours. SEEDS=1: each way once"
	@echo "make check   lint, layout, types and import rules"
	@echo "make gpu-check    on a machine with a GPU: is its work sound, and how fast is it, in nine minutes"
	@echo "make format  lay the code out and sort its imports"
	@echo "make lock    resolve requirements.lock anew from pyproject.toml; UPGRADE=1 takes newer versions"
	@echo "make clean   remove .venv"

demo: $(VENV)/installed
	$(BIN)/python -m sweep.run

# A worker a core, up to eight, since each holds 2 GB, and one for what those leave idle that wait for Ray or another process.
# It runs whole groups: a module, or all that share Ray.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadgroup --no-loadscope-reorder

test: $(VENV)/installed
	$(PYTEST)

test-quick: $(VENV)/installed
	$(PYTEST) -m 'not ray and not slow'

# As root, on Linux; CONTRIBUTING.md names the programs that it needs.
cluster-check: $(VENV)/installed
	$(BIN)/python -m pytest -m '' -rs tests/cluster

chaos: $(VENV)/installed
	$(BIN)/python tests/chaos/drive.py --seeds $(or $(SEEDS),4)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

gpu-check: $(VENV)/installed
	$(BIN)/python -m benchmarks.gpu_check

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: requirements.lock pyproject.toml | $(UV)
	$(UV) pip install --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "\`PYTHON\` must be Python >= 3.11," \
		"but got $$($(PYTHON) --version 2>&1). Give another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "\`$(PYTHON)\` must have its venv module," \
		"but got none. On Debian and Ubuntu install it: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet 'uv>=0.5'

lock: | $(UV)
	$(UV) pip compile pyproject.toml --extra dev --extra ui --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV)
