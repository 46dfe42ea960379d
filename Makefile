# What runs here is plain: a virtual environment from the lock, then Python. The README has the same without make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=

.PHONY: up test test-all lint

up: $(VENV)/ready
	$(BIN)/python manage.py up $(ARGS)

test: $(VENV)/ready
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not long" $(ARGS)

test-all: $(VENV)/ready
	$(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/ready: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@
