# Two commands do all their own set-up: `make demo` and `make test`. `make help` lists the rest.
.PHONY: help demo test test-lab test-debian12 test-standby test-relay test-fresh lint fast clean
.DEFAULT_GOAL := help
KEEP ?= yes
STANDBY ?= ovs bond lacp macvtap
SUITE ?= bookworm
READY := .venv/.ready

help: ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY) ## build and boot the lab, migrate a guest with a VF, print the report, write demo/
	@scripts/demo $(KEEP)

test: $(READY) ## lint, types, import directions, fast tests, then the smoke of the lab
	@scripts/check
	@scripts/lab-tests "lab and not matrix"

test-lab: $(READY) ## the whole matrices: codecs between two QEMUs, and faults in the lab, printed as a table
	@.venv/bin/pytest tests/unit -m matrix
	@scripts/lab-tests "lab or matrix"

test-debian12: $(READY) ## migrations between a host with Debian 12 and one with Debian 13, in a lab of these
	@scripts/lab-tests debian12 --debian12 host1

fast: $(READY) ## what needs no lab: lint, types, import directions, fast tests
	@scripts/check

test-standby: $(READY) ## migrations over each other standby path: STANDBY="ovs bond lacp macvtap", a lab after the other
	@for path in $(STANDBY); do scripts/lab-tests standby --standby $$path || exit 1; done

test-relay: $(READY) ## a relay with DPDK on a VF, and a guest on it, in a lab with what that needs
	@scripts/lab-tests relay --relay

test-fresh: ## what needs no lab, on a minimal Debian made for it: SUITE=bookworm or trixie; of the last commit
	@scripts/fresh $(SUITE)

lint: $(READY) ## ruff, mypy, import directions
	@scripts/check lint

clean: ## remove the environment and what was made here; a lab that is up is taken down
	@if [ -x .venv/bin/vferry ] && [ -d .lab ]; then .venv/bin/vferry lab down; fi
	rm -rf .venv .lab demo

$(READY): pyproject.toml scripts/setup
	@scripts/setup
