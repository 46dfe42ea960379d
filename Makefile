# What runs here is plain: a virtual environment from a lock, then Python. The README has the same without make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4
ARGS ?=
PIP := $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r

.PHONY: up test test-all lint wheel

up: $(VENV)/ready
	$(BIN)/python manage.py up $(ARGS)

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not long" $(ARGS)

test-all: $(VENV)/ready-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/ready-dev
	$(BIN)/python -m pip wheel -q --no-deps --wheel-dir dist .

$(VENV)/ready: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) requirements.lock
	touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	$(PIP) requirements-dev.lock
	touch $@
