# make demo   sets itself up, makes a small library of music and runs the main job on it
# make test   sets itself up and runs the tests
# make test-fast  the tests without those marked slow, browser or corpus
# make check  what CI runs: lint, types, rooms, tests
# make bench  each figure against its peer, in one run each
# make crash  breaks each stage at 200 moments (kills, full disk, ...) and runs it again
# make damage damages each kind of file in 2000 ways: the same answers, or one clear error
# make fuzz   preprocesses and indexes all hostile files of the tests' generator
# make soak   the explorer under load for 30 minutes
# make stop   Ctrl-C and SIGTERM in each stage: the seconds to the end
# make docs   the documentation site in build/site, strict
# make lock   requirements-lock.txt anew: the versions of constraints.txt with hashes
# make dist   the sdist, and the wheel made from it, in dist/
# make sbom   installs the locked packages and lists them with their licences in sbom.json (CycloneDX)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)-tools
DEMO ?= demo

.DEFAULT_GOAL := help
# else each process of the tests compiles all of them anew
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test test-fast lint check bench crash damage fuzz soak stop docs lock dist sbom clean

help:
	@sed -n 's/^# make/make/p' Makefile

# pip compiles bytecode on one core, and all of it; here every core does, and no package's tests.
define SET_UP
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '$(1)'
@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true # files for other Pythons
endef

$(VENV)/.base: pyproject.toml constraints.txt
	$(call SET_UP,.)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call SET_UP,.[dev])
	@touch $(VENV)/.base $@

demo: $(VENV)/.base
	$(BIN)/subgenre demo --out $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n logical --dist worksteal -m "not slow and not browser and not corpus"

lint: $(VENV)/.dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(VENV)/.dev
	$(MAKE) -j 2 lint test

bench: $(VENV)/.dev
	@for file in $(filter-out %/soak.py %/stopping.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

crash: $(VENV)/.dev
	$(BIN)/python -m tests.crashes --cases 200

damage: $(VENV)/.dev
	SUBGENRE_DAMAGE=2000 $(BIN)/python -m pytest tests/test_damage.py

fuzz: $(VENV)/.dev
	SUBGENRE_HOSTILE=0 $(BIN)/python -m pytest tests/commands/test_hostile_audio.py

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py

stop: $(VENV)/.dev
	$(BIN)/python benchmarks/stopping.py

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(TOOLS)/.made: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q uv==0.13.9 cyclonedx-bom==7.5.0
	@touch $@

lock: $(TOOLS)/.made
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra web --extra lora --constraints constraints.txt \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --quiet --output-file requirements-lock.txt

dist: $(TOOLS)/.made
	rm -rf dist
	$(TOOLS)/bin/uv build --out-dir dist

sbom: $(TOOLS)/.made
	$(PYTHON) -m venv --clear --without-pip $(TOOLS)/release
	$(TOOLS)/bin/uv pip install -q --python $(TOOLS)/release --require-hashes -r requirements-lock.txt
	$(TOOLS)/bin/cyclonedx-py environment $(TOOLS)/release --pyproject pyproject.toml \
	  --output-reproducible --output-file sbom.json

clean:
	rm -rf $(VENV) $(TOOLS) sbom.json build dist .mypy_cache .ruff_cache .pytest_cache
