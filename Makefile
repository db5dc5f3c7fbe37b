# make quickstart   install, then compare methods on the packaged support messages (minutes, two cores are enough)
# make test         install with the test extra, run the fast tests
# make check        the slow tests too
# make lint         ruff, formatting, strict types
# make docs-check   is docs/cli.md what the command line says?
# make bench        speed and memory beside other programs (docs/benchmarks.md); BENCH_ARGS="--data FOLDER …"
#
# Everything goes into .venv; a second call installs nothing. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=

bin := $(VENV)/bin
python := $(bin)/python

.PHONY: help quickstart install install-test test check lint docs docs-check bench clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

quickstart: $(VENV)/.installed
	$(bin)/icl run eval_suites/quickstart.yaml

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

test: $(VENV)/.installed-test
	$(python) -m pytest -q -m "not slow" $(PYTEST_ARGS)

check: $(VENV)/.installed-test
	$(python) -m pytest -q $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

docs: $(VENV)/.installed
	$(python) docs/generate_cli.py

docs-check: $(VENV)/.installed
	$(python) docs/generate_cli.py --check

bench: $(VENV)/.installed
	$(python) tests/benchmarks/bench_score.py $(BENCH_ARGS)
	$(python) tests/benchmarks/bench_generate.py $(BENCH_ARGS)
	$(python) tests/benchmarks/bench_memory.py

clean:
	rm -rf $(VENV)/.installed $(VENV)/.installed-test .pytest_cache .mypy_cache .ruff_cache

$(python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "icl needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps follow pyproject.toml: a changed dependency installs again, an unchanged one costs nothing.
$(VENV)/.installed: pyproject.toml | $(python)
	$(python) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(python)
	$(python) -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed
