# demo, test, test-slow, lint, docs. Three environments: .venv holds the core install alone, as a user gets it;
# .venv-dev holds an editable install with the tools, .venv-docs what the documentation is made with. Each is made once,
# and again when its inputs change.
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the tests start a hundred processes: without it, as in many containers, each compiles every module again
unexport PYTHONDONTWRITEBYTECODE

CORE := .venv/installed
DEV := .venv-dev/installed
SLOW := .venv-dev/installed-slow
DOCS := .venv-docs/installed
PACKAGE := $(shell find src/posezoo -type f -not -name '*.pyc')

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format docs clean python-version

help:
	@echo "make demo       keypoints on the photographs in examples/, offline, from the core install alone"
	@echo "make test       the test suite"
	@echo "make test-slow  the tests left out of it because they take longer"
	@echo "make lint       ruff and mypy"
	@echo "make format     ruff, mending what it can"
	@echo "make docs       the documentation as pages, in site/"
	@echo "make clean      remove the environments and the demo's output"
	@echo "Another Python: make test PYTHON=python3.12"

python-version:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	{ echo "posezoo needs Python 3.10 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." \
	  "Try: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	{ echo "'$(PYTHON)' cannot make environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(CORE): pyproject.toml constraints.txt $(PACKAGE) | python-version
	test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet -c constraints.txt .
	@touch $@

$(DEV): pyproject.toml constraints.txt | python-version
	test -x .venv-dev/bin/pip || $(PYTHON) -m venv --clear .venv-dev
	.venv-dev/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	.venv-dev/bin/pip install --quiet -c constraints.txt --no-deps trackeval scipy tabulate pillow
	@touch $@

$(SLOW): $(DEV)
	.venv-dev/bin/pip install --quiet -c constraints.txt -e '.[batch]'
	@touch $@

$(DOCS): pyproject.toml constraints.txt | python-version
	test -x .venv-docs/bin/pip || $(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(CORE)
	.venv/bin/posezoo predict examples -o demo-output
	@echo "Look at the pictures in demo-output/; the keypoints stand in one .json beside each."

# one process a core, and one thread each: the networks in the tests are small
test: $(DEV)
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest -n auto --dist worksteal

test-slow: $(SLOW)
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest -m slow --timeout 1800 -n auto --dist worksteal

lint: $(DEV)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

format: $(DEV)
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

# the variable keeps the theme's advertisement for its successor off the terminal
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "Open site/index.html."

clean:
	rm -rf .venv .venv-dev .venv-docs demo-output site
