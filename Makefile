# Every target works alone, first, on a fresh clone; python3 (3.11 or newer), pip and make are all it needs.

PYTHON ?= python3
# Half as many more than there are processors: much of the time, a test waits for a timer or for another process.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n + (n + 1) / 2)))
PYTEST_ARGS ?=
PNC_ARGS ?=
# Where the million certificates are made, and kept for the next run; and what is measured with them.
MILLION_FOLDER ?= $(CURDIR)/benchmarks/results/estate
MILLION ?= reads takeover checking
# Packages released later than this are not considered by `make requirements`: the same inputs give the same pins.
EXCLUDE_NEWER ?= 2026-11-12

BIN := .venv/bin
UV := .boot/bin/uv
ENV := .venv/.ready
# The interpreter is the machine's own; and files are copied, so that nothing edited here reaches uv's cache.
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# CI says so in a variable; a developer's own virtual environment must not be picked up by mistake.
unexport VIRTUAL_ENV
# The processes of a test run share what each has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup judges demo pnc-e2e test check bench campaign million reference wheel sbom requirements clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(ENV) ## make .venv, with the chargepki command in .venv/bin

judges: .judges/.ready ## fetch the foreign EXI codec (PyPI's iso15118, needs Java) that tests compare ours with

demo: $(ENV) ## run the main job on loopback, in a throw-away workspace
	@$(BIN)/chargepki demo

pnc-e2e: $(ENV) .pnc/.ready ## run Plug & Charge sessions with simulators that are not ours (PyPI's iso15118, needs Java)
	PYTHONPATH=tests/lib $(BIN)/python -m tests.pnc_e2e --json benchmarks/results/pnc-e2e.json $(PNC_ARGS)

test: $(ENV) ## run every test that belongs to CI
	$(BIN)/python -m pytest -q -n $(JOBS) --durations=20 --durations-min=1 $(PYTEST_ARGS)

check: $(ENV) ## lint, format, types, import contract, doctests, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/mypy conftest.py hatch_build.py tools tests benchmarks
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -p no:cacheprovider -m "not slow" tests/test_layout.py tests/test_doctests.py tests/test_docs.py

# A peer that cannot be fetched is left out of the measurement, and of the table of the README with it.
bench: $(ENV) ## measure, print the table, write benchmarks/results/*.json and the table of the README
	@$(MAKE) --no-print-directory .peers/.ready || echo 'django-ca could not be fetched: issuance is measured without it' >&2
	$(BIN)/python -m benchmarks $(BENCH)

campaign: $(ENV) ## what takes longer than CI allows: marked tests, properties with more examples, a million certificates
	@$(MAKE) --no-print-directory .scanners/.ready || echo 'sslyze could not be fetched: its test will say so' >&2
	CHARGEPKI_CAMPAIGN=1 $(BIN)/python -m pytest -q -n $(JOBS) --timeout=3600 $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory million

million: $(ENV) ## measure the inventory at a million certificates on both databases (an hour or more, 25 GB of disk)
	@mkdir -p '$(MILLION_FOLDER)'
	CHARGEPKI_BENCH_CERTIFICATES=1000000 CHARGEPKI_BENCH_FOLDER='$(MILLION_FOLDER)' \
	  $(BIN)/python -m benchmarks --publish $(MILLION)

reference: $(ENV) ## write the generated pages of docs/reference anew
	$(BIN)/python -m tools.make_reference

screenshots: $(ENV) ## take the pictures in docs/images anew (needs chromium)
	PYTHONPATH=tests/lib $(BIN)/python -m tools.make_screenshots

wheel: $(ENV) ## build dist/*.whl and dist/*.tar.gz, twice, and compare them byte by byte
	$(BIN)/python tools/build_dist.py dist

sbom: $(ENV) ## write dist/sbom.cdx.json (CycloneDX) of what a user installs
	$(BIN)/python tools/make_sbom.py dist/sbom.cdx.json

requirements: $(UV) ## compile requirements/*.txt anew from pyproject.toml
	$(UV) pip compile pyproject.toml --extra dev $(COMPILE) $(UNWANTED) -o requirements/dev.txt
	$(UV) pip compile pyproject.toml --extra postgresql $(COMPILE) -o requirements/runtime.txt
	$(UV) pip compile requirements/boot.in $(COMPILE) -o requirements/boot.txt
	$(UV) pip compile requirements/judges.in --no-deps $(COMPILE) -o requirements/judges.txt
	$(UV) pip compile requirements/peers.in $(COMPILE) -o requirements/peers.txt
	$(UV) pip compile requirements/pnc-e2e.in $(COMPILE) -o requirements/pnc-e2e.txt
	$(UV) pip compile requirements/scanners.in $(COMPILE) -o requirements/scanners.txt

COMPILE := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --exclude-newer $(EXCLUDE_NEWER) -q \
  --custom-compile-command "make requirements"

# What cyclonedx-bom has jsonschema bring along to check IRIs, which nothing here contains: it compiles its grammars when
# it is imported, and so costs every process that imports jsonschema (all that use `ocpp`) more than a second.
UNWANTED := --no-emit-package rfc3987-syntax --no-emit-package lark

clean: ## remove everything that the other targets made
	rm -rf .boot .judges .peers .pnc .scanners .venv .editable dist build benchmarks/results tests/interop/node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# pip's --target is allowed on an externally managed Python; uv then makes the environment without the venv package.
$(UV): requirements/boot.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'error: $(PYTHON) is not Python 3.11 or newer; install it, or run: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 4; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || \
	  { echo 'error: $(PYTHON) has no pip; on Debian run: apt-get install python3-pip' >&2; exit 4; }
	@rm -rf .boot
	@$(PYTHON) -m pip install --quiet --root-user-action=ignore --require-hashes --target .boot -r requirements/boot.txt
	@touch $(UV)

# Apart from .venv: iso15118 pins versions of its dependencies that we cannot live with, and only its codec is wanted.
.judges/.ready: $(UV) requirements/judges.txt
	@rm -rf .judges
	@$(UV) pip install --quiet --target .judges --no-deps --require-hashes -r requirements/judges.txt
	@touch .judges/.ready

.peers/.ready: $(UV) requirements/peers.txt
	@rm -f .peers/.ready
	@$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .peers
	@$(UV) pip sync --quiet --compile-bytecode --python .peers/bin/python --require-hashes requirements/peers.txt
	@touch .peers/.ready

.scanners/.ready: $(UV) requirements/scanners.txt
	@rm -f .scanners/.ready
	@$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .scanners
	@$(UV) pip sync --quiet --compile-bytecode --python .scanners/bin/python --require-hashes requirements/scanners.txt
	@touch .scanners/.ready

.pnc/.ready: $(UV) requirements/pnc-e2e.txt
	@rm -f .pnc/.ready
	@$(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .pnc
	@$(UV) pip sync --quiet --compile-bytecode --python .pnc/bin/python --require-hashes requirements/pnc-e2e.txt
	@touch .pnc/.ready

# A broken or half-made environment is made anew; an intact one is only brought up to date. Compiled, as pip installs:
# where PYTHONDONTWRITEBYTECODE is set, every start of the command would compile it all again.
$(ENV): $(UV) requirements/dev.txt pyproject.toml hatch_build.py
	@rm -f $(ENV)
	@$(BIN)/python -c '' 2>/dev/null || $(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q pki ocpp_security cli
	@touch $(ENV)
