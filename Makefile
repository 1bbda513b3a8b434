# Needs only Python 3.11 or newer, make and git. Everything is installed into .venv.
#
#   make demo    set up, then the whole job on what is shipped; results under runs/demo
#   make test    set up, then every check: format, lint, types, layers, tests
#   make fix     format, and repair what the linter can repair
#   make clean   remove .venv
#
# Another Python:    make demo PYTHON=python3.12
# Another PyTorch:   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"   (small, without CUDA)

PYTHON ?= python3
TORCH  ?= torch==2.13.0
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -qq

.PHONY: help demo test fix clean
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/.installed
	$(BIN)/dualanodiff demo --out runs/demo

# One thread a worker: two workers with two threads each slow one another down.
test: export OMP_NUM_THREADS = 1
test: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

fix: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv

# The two files below mark a finished installation, so that the second call does nothing.
.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make: needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo 'make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@echo 'Installing PyTorch ($(TORCH)) into .venv ...'
	@$(PIP) $(TORCH) || { echo 'That one is not to be had; taking the newest.'; $(PIP) 'torch>=2.4'; }
	@echo 'Installing dualanodiff and what else it needs ...'
	@$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo 'Installing the checkers ...'
	@$(PIP) --editable '.[dev]'
	@touch $@
