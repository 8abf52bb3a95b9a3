VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP := $(VENV)/.stamp-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

# One thread and passive waiting: spinning workers make small models slower on busy machines.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install demo lint test test-release bench clean

help:
	@echo "make demo | install | lint | test | test-release | bench | clean"

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module; on Debian: apt install python3-venv"; exit 2; }
	@echo "Installing into $(VENV)"
	@$(BIN)/pip install -q --no-compile --prefer-binary -c constraints.txt -e '.[dev,onnx,s3,serve,tabular,trees]'
	@# What is imported is compiled here once, and not by every worker of the tests at the same time.
	@$(BIN)/python -c 'import pandas, sklearn.linear_model, torch._dynamo, withstand.workflows'
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/withstand demo

lint: $(STAMP)
	$(BIN)/ruff format --check src tests tools benchmarks examples
	$(BIN)/ruff check src tests tools benchmarks examples
	$(BIN)/mypy
	$(BIN)/python tools/check_rooms.py src/withstand

# Three at a time on two cores: some tests wait for clocks and sockets.
test: $(STAMP)
	$(BIN)/pytest -q -n 3 --dist worksteal -m "not slow"

# Builds environments with model servers on first use, 0.5 GB each.
test-release: $(STAMP)
	$(BIN)/pytest -q

# The peers live in an environment of their own; some declare dependencies that they do not use.
BENCH := .venv-bench
bench: $(BENCH)/.stamp
	cd benchmarks && PYTHONPATH=../src ../$(BENCH)/bin/python -W ignore run.py $(PARTS)

$(BENCH)/.stamp: benchmarks/peers.txt benchmarks/peers-alone.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install -q --no-compile --prefer-binary -c constraints.txt -e '.[serve,tabular,trees]' -r benchmarks/peers.txt
	$(BENCH)/bin/pip install -q --no-compile --no-deps -r benchmarks/peers-alone.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-* build dist
