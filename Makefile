# The front door: `make demo` shows the whole product, `make test` proves it.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# bytecode is made at setup: where Python may not write it later, every start of a verb would compile for a second
PACKAGE := acquisition analytics commands control daemon model protocols simulator storage cli.py __init__.py
UNUSED := '/(tests?|testing|mypy|mypyc|hypothesis|pip|setuptools|pkg_resources|lexers|styles)/'

.PHONY: setup demo test lint format docs bench soak lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Fuhe needs Python 3.11 or newer. Debian/Ubuntu: apt-get install python3 python3-venv   (or: make PY=/path/to/python3.11 ...)"; exit 1; }
	@$(PY) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. Debian/Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) from requirements.lock (once)..."
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/python -m ensurepip >/dev/null 2>&1 || true
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q -j 0 -x $(UNUSED) $(VENV)/lib $(PACKAGE)
	@touch $(STAMP)

demo: setup
	@$(BIN)/fuhe demo

test: setup
	@$(BIN)/python -m pytest tests

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p fuhe

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup
	@mkdir -p docs/protocols
	@$(BIN)/fuhe --lang en reference qgdw1376 > docs/protocols/qgdw1376.md
	@$(BIN)/fuhe --lang zh reference qgdw1376 > docs/protocols/qgdw1376.zh-CN.md

bench: setup
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-bench.lock
	@$(BIN)/python -m bench

soak: setup
	@$(BIN)/python -m bench.soak

lock:
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --extra dev --extra cluster -o requirements.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --extra dev --extra cluster --extra bench -c requirements.lock -o requirements-bench.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
