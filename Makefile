VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP := $(VENV)/.stamp-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

# One thread and passive waiting: spinning workers make small models slower on busy machines.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install lint test test-release clean

help:
	@echo "make install | lint | test | test-release | clean"

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module; on Debian: apt install python3-venv"; exit 2; }
	@echo "Installing into $(VENV)"
	@$(BIN)/pip install -q --no-compile --prefer-binary -c constraints.txt -e '.[dev,tabular]'
	@touch $(STAMP)

install: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff format --check src tests tools
	$(BIN)/ruff check src tests tools
	$(BIN)/mypy
	$(BIN)/python tools/check_rooms.py src/withstand

test: $(STAMP)
	$(BIN)/pytest -q -m "not slow"

test-release: $(STAMP)
	$(BIN)/pytest -q

clean:
	rm -rf $(VENV) build dist
