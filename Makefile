# The interface of people and of CI. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Targets are names of jobs, not of files, and none of them may run beside another: they share target/.
.PHONY: help up down demo test test-gitops test-trouble fmt fmt-check lint unit schema e2e fault fault-test fault-all fault-mutants soak crds bench helm-check image-check test-rules deny sbom clean
.NOTPARALLEL:

controlplane := tests/controlplane
# A flat file tests/NAME.rs needs no cluster; what needs one lies in tests/e2e/.
clusterless := $(foreach file,$(wildcard tests/*.rs),--test $(basename $(notdir $(file))))
rust := . $(controlplane)/lib.sh && need_rust

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## start a control plane with the chart and the operator in target/up; keeps what runs already
	@$(controlplane)/up.sh

down: ## stop all that "up" started and remove target/up
	@[ ! -e target/up ] || $(controlplane)/operator.sh stop target/up
	@$(controlplane)/cluster.sh down up target/up
	@rm -rf target/up

demo: up ## "up", then the story of one incident in real kubectl output
	@examples/demo.sh

test: ## all checks and tests; what CI runs
	@tests/test.sh

test-gitops: ## mitigations against the real kustomize-controller of Flux; builds it the first time
	@tests/flux/build.sh >/dev/null
	@FLUX=1 tests/e2e.sh $(ARGS)

fmt: ## format the Rust code
	@$(rust)
	@cargo fmt

fmt-check: ## check the format, change nothing
	@$(rust)
	@cargo fmt --check || { echo 'error: run make fmt' >&2; exit 1; }

lint: ## clippy; warnings are errors
	@$(rust)
	@cargo clippy --all-targets --locked -- -D warnings

unit: ## tests that need no cluster
	@$(rust)
	@cargo test --locked --lib --bins $(clusterless)

schema: ## tests of the API's schema on a real API server
	@tests/e2e.sh schema::

e2e: ## schema and end-to-end tests on a control plane of their own; ARGS=FILTER, KEEP=1 keeps it running
	@tests/e2e.sh $(ARGS)

fault: ## fault scenarios behind a proxy; SCENARIO=a,b MODE=kill-after,409 K=3 SEED=…, LIST=1 names them, KEEP=1
	@tests/fault.sh $(if $(LIST),--list) $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(MODE),--mode $(MODE)) \
	  $(if $(K),--k $(K)) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

fault-test: ## every scenario, killed before and after each write and with each answer lost
	@tests/fault.sh --mode test $(ARGS)

fault-all: ## the same with every mode, and a minute of silence after each undisturbed run
	@tests/fault.sh --mode all --quiet-reference 60 --quiet 3 $(ARGS)

fault-mutants: ## seeded bugs, each of which the fault scenarios must catch
	@FEATURES=mutants tests/fault.sh mutants $(if $(MUTANT),--mutant $(MUTANT)) $(ARGS)

soak: ## a random schedule of all fault scenarios for MINUTES=30; SEED=… repeats one
	@tests/fault.sh soak --mode all $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: ## measure the operator beside raw requests; ONLY=P1,P3 some alone, BENCH=full the large sizes, too
	@tests/bench.sh

test-trouble: ## leaders and an API server in trouble, with the times that things take by themselves; about 20 minutes
	@TROUBLE=full tests/e2e.sh trouble
	@TROUBLE=full tests/e2e.sh lease::

crds: ## generate crds/, the generated files of the chart and the generated parts of the documentation
	@$(rust)
	@cargo run --quiet --locked -- crds --dir crds
	@cargo run --quiet --locked -- manifests --dir charts/incident-operator/files
	@cargo run --quiet --locked -- reference

helm-check: ## lint the chart and render it
	@tests/chart/check.sh

image-check: ## build the image's final stage and run the binary in it
	@tests/image/check.sh

test-rules: ## test the alert rules with the real promtool, which is built first: up to ten minutes, once
	@tests/alerts/test.sh

deny: ## check licences, sources and known vulnerabilities of the crates that we build on
	@tests/supply/deny.sh

sbom: ## list all that the binary is built from, as CycloneDX: target/incident-operator.cdx.json
	@tests/supply/sbom.sh

clean: down ## stop all clusters of this checkout and remove target/; the control plane's binaries stay in their cache
	@$(controlplane)/cluster.sh down test target/test
	@$(rust)
	@cargo clean
