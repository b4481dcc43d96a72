# Two commands set everything up on a fresh machine with Python 3.11 or newer and pip: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Python keeps what it compiled, whatever is set around: without, each process compiles PyTorch anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all recipe lint format clean

demo: $(READY)
	run=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/gapless search --out $$run && \
	$(BIN)/gapless retrain $$run --out $$run-retrained && \
	$(BIN)/gapless export $$run-retrained --format py,onnx,torch --out $$run-exported

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Every test but those that need a GPU or hours; the last lines say how long it took and what came of it.
test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not paper' --durations=15

recipe: $(READY)
	$(BIN)/python -m pytest -m recipe

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
