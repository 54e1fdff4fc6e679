# `make demo`, `make demo-detection`, `make test` and `make test-all` set up everything they need in .venv and can be repeated.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := pip install --quiet --disable-pip-version-check
TOOLS := .venv-tools/bin
TOOL_PACKAGES := pip-audit==2.10.1 pip-licenses==5.5.5
MUTANTS ?= 20000
SEED ?= 0

.PHONY: setup docs demo demo-detection test test-all fuzz lint format lock lowest audit licences

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	awk '/^uv==/,!/\\$$/' constraints.txt > .venv/uv.txt
	$(BIN)/$(PIP) --require-hashes --requirement .venv/uv.txt
	$(BIN)/uv pip install --quiet --python .venv --require-hashes --requirement constraints.txt
	$(BIN)/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)
	$(BIN)/prune-env train digits --finetune run.directory=runs/demo-$$(date +%Y%m%d-%H%M%S)

demo-detection: $(READY)
	$(BIN)/prune-env train digits_detection run.directory=runs/detection-$$(date +%Y%m%d-%H%M%S)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Mutants of every file that is read: make fuzz MUTANTS=100000 SEED=1
fuzz: $(READY)
	PYTHONPATH=tests:. OMP_NUM_THREADS=1 $(BIN)/python -m fuzzing --mutants $(MUTANTS) --seed $(SEED)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(TOOLS)/.ready: Makefile
	test -x $(TOOLS)/python || $(PYTHON) -m venv .venv-tools
	$(TOOLS)/$(PIP) $(TOOL_PACKAGES)
	touch $@

# The versions of all dependencies, with their hashes; UPGRADE=--upgrade takes the newest.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file constraints.txt

# The tests with the lowest versions that pyproject.toml allows.
lowest: $(READY)
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(BIN)/uv pip install --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

# Known vulnerabilities of the locked versions.
audit: $(TOOLS)/.ready
	$(TOOLS)/pip-audit --requirement constraints.txt --require-hashes --disable-pip

# The licence of every installed dependency.
licences: $(READY) $(TOOLS)/.ready
	$(TOOLS)/pip-licenses --python $(BIN)/python --from mixed --order license

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"
