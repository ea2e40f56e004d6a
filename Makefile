# make run | serve | test | check | install | clean. Needs Python 3.11 or 3.12, git and make; everything else is installed here.
SHELL := /bin/bash
.DELETE_ON_ERROR:

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := $(CURDIR)/.venv/bin
INSTALLED := .venv/.installed
OVERRIDES ?=

# Children of DVC are started as `python`: it must be the one installed here, also when nobody activated it.
export PATH := $(BIN):$(PATH)
export UV_LINK_MODE ?= copy
# Trust the certificates that the machine trusts, as pip does: uv brings its own list otherwise.
export UV_SYSTEM_CERTS ?= 1

.PHONY: run serve test check install clean

run: $(INSTALLED)
	@$(BIN)/python -m flows.line $(OVERRIDES)

serve: $(INSTALLED)
	@exec $(BIN)/python -m infra.local

test: $(INSTALLED)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not parity and not nightly and not faults and not gpu and not services and not line and not kernels"

check: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pipeline config --check

install: $(INSTALLED)

$(INSTALLED): requirements.lock | $(UV)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python {v[0]}.{v[1]} does not do; name a 3.11 or 3.12: make install PYTHON=python3.12")'
	@test -x .venv/bin/python || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	@$(UV) pip sync --quiet --python .venv/bin/python requirements.lock
	@touch $@

.uv/bin/uv:
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

clean:
	rm -rf .venv .uv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
