PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: verify test lint bench figures gallery models clean

verify: $(INSTALLED)  ## check every theorem, then audit a real pretrained Transformer
	$(BIN)/tokendyn verify --json verify.json
	$(BIN)/tokendyn audit albert --json audit.json || test $$? -eq 3  # 3: no network, said in the message

test: verify  ## the same, then the test suite with its coverage bar
	$(BIN)/python -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder --cov --cov-report=term

figures: $(INSTALLED)  ## every figure as PDF and PNG, with its data, into figures/
	$(BIN)/tokendyn figures || test $$? -eq 3  # 3: something is missing, said in the message

gallery: figures  ## docs/figures.md, from these
	$(BIN)/python -m paper_figures.gallery

models: $(INSTALLED)  ## docs/models.md: which statements speak about which pretrained model
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m tokendyn.models

lint: $(INSTALLED)  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## the engine against other solvers, see benchmarks/README.md
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.engine

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) .cache verify.json audit.json
