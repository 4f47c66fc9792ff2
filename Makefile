# The only list of commands: continuous integration, the pre-commit hooks and the documentation call these.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# What the hundreds of processes that the tests start import is compiled once, not by each of them.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python

# Into the environment that a rule makes, in a tenth of pip's time. It knows nothing of pip's settings: UV_DEFAULT_INDEX
# names another index than the usual.
UV = $(BIN)/uv pip install --quiet --python $(@D)/bin/python

RUNNER := runtimes/runner
RUNNER_STAMP := pydantic_ai_sandbox/_runner/stamp
RUNNER_SOURCES := $(shell find $(RUNNER) -name '*.go' -o -name 'go.*')

# Nothing but the standard library and the toolchain of the environment: Go never goes to the network.
GO := GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod GOWORK=off $(CURDIR)/$(BIN)/go
RACE := $(if $(shell command -v gcc),-race)
FUZZTIME ?= 20s
PYTEST_ARGS ?=
WORKERS ?= 4
PACKAGES ?= ./...
ATTACK_RUNS ?= 1
ATTACK_WORKERS ?= 3
BUSY ?=
REST ?=
ATTACK_ARGS = --attack-runs $(ATTACK_RUNS) $(if $(BUSY),--busy)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- From nothing -----------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/installed $(RUNNER_STAMP) ## Make .venv and build the runner
	@:

$(VENV)/installed: pyproject.toml hatch_build.py scripts/venv.sh
	@sh scripts/venv.sh $(VENV)
	@echo "Installing the package and its development tools into $(VENV)"
	@$(PYTHON) -m pip install --quiet uv
	@$(UV) --editable '.[dev]'
	@touch $@

$(RUNNER_STAMP): $(RUNNER_SOURCES) hatch_build.py | $(VENV)/installed
	@$(PYTHON) hatch_build.py
	@touch $@

.PHONY: docker
docker: setup ## Make sure that a Docker daemon answers; as root on Debian, install and start one
	@$(PYTHON) scripts/daemon.py

.PHONY: images
images: docker ## Build the images of the built-in runtimes that are not there yet
	@$(BIN)/pydantic-ai-sandbox build

.PHONY: demo
demo: docker ## Watch an agent repair a package in a sandbox
	@$(PYTHON) examples/quickstart.py

# -- Checks -----------------------------------------------------------------------------------------------------------

.PHONY: test
test: images ## Run all tests, the runner's (Go) too; of the attacks those that are quick
	@$(BIN)/pytest -n $(WORKERS) -m "(not attacks or quick) and not alone" $(PYTEST_ARGS) || test $$? = 5
	@$(BIN)/pytest -m "alone and not attacks" $(PYTEST_ARGS) || test $$? = 5

.PHONY: test-go
test-go: setup ## Run the runner's tests only, with the race detector where there is a C compiler
	@cd $(RUNNER) && $(GO) test $(RACE) $(PACKAGES)

.PHONY: test-attacks
test-attacks: images ## Try every attack, ATTACK_RUNS (1) times in a row; BUSY=1: beside four busy sandboxes; REST=1: what `test` leaves
	@$(BIN)/pytest tests/attacks -n $(ATTACK_WORKERS) -m "not alone$(if $(REST), and not quick)" $(ATTACK_ARGS) $(PYTEST_ARGS) || test $$? = 5
	@$(BIN)/pytest tests/attacks -m alone $(ATTACK_ARGS) $(PYTEST_ARGS) || test $$? = 5

.PHONY: attack-table
attack-table: images ## Try every attack once and write the table in SECURITY.md from how they ended
	@$(BIN)/pytest tests/attacks/test_attacks.py --attack-table $(PYTEST_ARGS)

.PHONY: test-interop
test-interop: images $(VENV)-interop/installed ## Run other people's toolsets in our sandbox, in an environment of their own
	@$(VENV)-interop/bin/python -m pytest tests/interop $(PYTEST_ARGS)

$(VENV)-interop/installed: pyproject.toml hatch_build.py scripts/venv.sh | $(VENV)/installed
	@sh scripts/venv.sh $(VENV)-interop
	@$(UV) --editable . pydantic-ai-harness anyio pytest pytest-timeout
	@touch $@

# Inputs worth keeping, which Go has in its cache, go to testdata/fuzz of their package: every run of the tests tries them.
.PHONY: fuzz
fuzz: setup ## Fuzz the runner's parsers, FUZZTIME (20s) for each target
	@cd $(RUNNER) && set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: lint
lint: setup ## Check style, the direction of imports, and that all tests can be found
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l $(RUNNER)); \
		test -z "$$unformatted" || { echo "not formatted by gofmt: $$unformatted"; exit 1; }
	@cd $(RUNNER) && $(GO) vet ./...
	@found=$$($(BIN)/pytest --collect-only -qq 2>&1) || { echo "$$found"; exit 1; }

.PHONY: typecheck
typecheck: setup ## Check types, strictly
	@$(BIN)/pyright

.PHONY: format
format: setup ## Format the sources and apply the safe fixes
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format
	@$$($(GO) env GOROOT)/bin/gofmt -w $(RUNNER)

CHAOS_SECONDS ?= 3600
CHAOS_ARGS ?=

.PHONY: chaos
chaos: images ## Operations and faults at random, CHAOS_SECONDS (3600) long, on a daemon of its own; needs root
	@$(PYTHON) -m tests.chaos --seconds $(CHAOS_SECONDS) $(CHAOS_ARGS)

.PHONY: bench
bench: images ## Measure against a host subprocess, docker exec and docker run
	@$(PYTHON) -m tests.bench

.PHONY: hooks
hooks: setup ## Run lint and typecheck before every commit
	@$(BIN)/pre-commit install

# -- Housekeeping -----------------------------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove environments and everything built in this directory
	rm -rf $(VENV) $(VENV)-interop build dist pydantic_ai_sandbox/_runner .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: clean-docker
clean-docker: setup ## Remove our images, containers and volumes from the Docker daemon
	@$(BIN)/pydantic-ai-sandbox remove --yes
