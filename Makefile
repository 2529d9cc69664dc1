# Two commands matter to a newcomer: `make demo` and `make test`. Both set up all they need by themselves,
# in .venv, .uv and ${LONGTAIL_CACHE:-~/.cache/longtail}, and stop everything they start.

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .uv/bin/uv
RUN := .venv/bin
# An existing cluster for the demo: make demo CONTEXT=kind-kind
CONTEXT ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit e2e components image crds bench bench-demand-quick bench-frontier-quick soak verify-engine clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .venv/.synced ## Create the virtual environment from uv.lock

# uv has its own environment: `uv sync` removes from .venv whatever the lock does not name, itself included.
$(UV):
	@echo "setup: installing uv $(UV_VERSION)"
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

.venv/.synced: $(UV) pyproject.toml uv.lock
	@echo "setup: creating .venv from uv.lock"
	@UV_PYTHON_DOWNLOADS=never UV_PYTHON=$$($(PYTHON) -c 'import sys; print(sys.executable)') $(UV) sync --frozen --quiet
	@touch $@

demo: setup ## Run the operator on a real control plane under a rising and falling load (CONTEXT=name: your cluster)
	@PYTHONPATH=e2e $(RUN)/python -m longtail_demo $(if $(CONTEXT),--context $(CONTEXT))

# One after the other: end-to-end tests wait for real clocks (leases, scrapes, syncs of the HPA), which a machine
# that is busy with unit tests would hold up.
test: lint components ## Everything: lint, types, import contracts, unit, property, component, e2e
	@echo "test: unit tests, then end-to-end tests: about half an hour on two cores"
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e

lint: setup ## Lint, formatting, types, import contracts
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy operator/longtail e2e integrations
	$(RUN)/lint-imports

unit: setup ## Unit, property and component tests with branch coverage of demand and policy
	$(RUN)/pytest operator tests --numprocesses=auto --cov --cov-report=
	$(RUN)/coverage report --fail-under=95

e2e: setup ## Tests against a real API server and a real Prometheus on loopback, and on a real node in a sandbox
	$(RUN)/pytest e2e/tests
	@PYTHONPATH=e2e $(RUN)/python -m longtail_e2e.sandbox $(RUN)/pytest e2e/node

components: setup ## Build etcd, Kubernetes, KWOK, Prometheus and Helm into the cache, unless they are there
	@PYTHONPATH=e2e $(RUN)/python -m longtail_e2e build

image: setup ## Build the operator's image on a base made here, into an archive (root and Debian; docs/install.md)
	@PYTHONPATH=e2e $(RUN)/python -m longtail_e2e image

crds: setup ## Generate crds/ from the models, and from it and values.yaml what the charts repeat
	$(RUN)/longtail crds --out crds
	$(RUN)/python charts/generate.py

# Demand first, then the frontier on all cores: under an hour on two. QUICK=1: both at once on short traces, no documents.
bench: setup ## All benchmarks into docs/benchmarks and bench-out (QUICK=1: five minutes, into bench-out alone)
	@mkdir -p bench-out
ifdef QUICK
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target bench-demand-quick bench-frontier-quick
else
	$(RUN)/longtail bench demand --report docs/benchmarks/demand.md
	$(RUN)/longtail bench drift --report docs/benchmarks/drift.md --picture docs/benchmarks/drift.png
	$(RUN)/longtail frontier --hours 6 --max-runs 7 --seeds 1 --json bench-out/frontier.json \
		--report bench-out/frontier.html --pictures docs/benchmarks --markdown docs/benchmarks/frontier.md
endif

bench-demand-quick: setup
	$(RUN)/longtail bench demand --quick

bench-frontier-quick: setup
	$(RUN)/longtail frontier --quick --workers 1 --json bench-out/frontier-quick.json \
		--report bench-out/frontier-quick.html --pictures bench-out

# The same tests as in `make test`, longer: 100,000 steps of the walk, 2,000 cycles of load, 250 kills of the
# operator, faults as long as real ones (120 looks at the fleet are half an hour at its default of 15 s).
soak: setup components ## Hours of faults: random walk, drains, kills, outages (not part of test)
	LONGTAIL_WALK_STEPS=100000 $(RUN)/pytest tests/policy/test_walk.py --numprocesses=auto
	LONGTAIL_E2E_DRAIN_CYCLES=2000 LONGTAIL_E2E_DRAIN_KILLS=250 LONGTAIL_E2E_FAULT_LOOKS=120 \
		LONGTAIL_E2E_OUTAGE_SECONDS=300 $(RUN)/pytest e2e/tests/test_drain_e2e.py e2e/tests/test_faults_e2e.py \
		e2e/tests/test_failover_e2e.py e2e/tests/test_api_faults_e2e.py e2e/tests/test_operator_e2e.py

verify-engine: setup ## Check our signals against a real vLLM on the CPU (6 GB in the cache; not part of test)
	@PYTHONPATH=e2e $(RUN)/python -m verify_engine

clean: ## Remove what was created inside the checkout
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage demo-out bench-out dist
