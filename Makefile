# Everything that is built lives outside the checkout: a fresh clone beside this one finds it built.
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ip-address-controller
export CARGO_TARGET_DIR ?= $(cache)/target
# One feature set for everything that is run: what the tests built is what the demo runs.
cargo_build := cargo build --locked --workspace --all-targets
operator := $(CARGO_TARGET_DIR)/debug/ip-address-controller
chart_readme := $(CARGO_TARGET_DIR)/debug/chart-readme
cargo_deny_version := 0.20.2
cargo_deny := $(cache)/tools/cargo-deny-$(cargo_deny_version)/bin/cargo-deny

# Stops at once, in one line, where something is missing.
needs = $(if $(missing),$(error $(missing)))
missing = $(shell .ci/prerequisites $(1))

.DEFAULT_GOAL := help
.PHONY: help demo test bench soak model scale fuzz check generate pictures image build tools
.NOTPARALLEL:

help: ## This help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Built things live in $(cache); CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)"

CLOUD ?= gcp
demo: ## Tell the whole story on a real control plane and a simulated cloud; CLOUD=aws, CLOUD=azure; KEEP=1 leaves it running until Ctrl-C
	$(if $(filter gcp aws azure,$(CLOUD)),,$(error CLOUD=$(CLOUD) cannot be shown: expected gcp, aws or azure))
	$(call prepared)
	@exec $(CARGO_TARGET_DIR)/debug/demo --cloud $(CLOUD) $(if $(filter-out 0 no false,$(KEEP)),--keep)

test: ## Every test, end to end ones included
	$(call prepared)
	@echo "==> running the tests"
	@cargo test --locked --workspace

SIZES ?= 10,100,1000
PODS ?= 30000
bench: ## Measure what the operator costs and how that grows, into docs/performance.md; SIZES=10,100 for less; not part of .ci/run
	$(if $(filter gcp aws azure,$(CLOUD)),,$(error CLOUD=$(CLOUD) cannot be measured: expected gcp, aws or azure))
	$(call needs)
	@e2e/tools/build >/dev/null
	@echo "==> building the release and the benchmarks (the first time about 45 minutes on two cores)"
	@cargo build --release --locked --workspace --bin ip-address-controller --bin bench
	@echo "==> the parts of a pass"
	@cargo bench --locked --workspace --bench micro
	@echo "==> the operator on a real control plane"
	@$(CARGO_TARGET_DIR)/release/bench --sizes $(SIZES) --pods $(PODS) --cloud $(CLOUD) --criterion $(CARGO_TARGET_DIR)/criterion \
	  --commit "$$(git describe --always --dirty --exclude '*')" $(if $(filter gcp,$(CLOUD)),--report docs/performance.md)

SOAK_SECONDS ?= 600
SEED ?=
soak: ## Ten minutes of random drains, lost nodes, edits and faults on a real control plane, into docs/soak.md; SOAK_SECONDS=60, SEED=17; not part of .ci/run
	$(call prepared)
	@exec $(CARGO_TARGET_DIR)/debug/soak --seconds $(SOAK_SECONDS) $(if $(SEED),--seed $(SEED)) \
	  --commit "$$(git describe --always --dirty --exclude '*')" --report docs/soak.md

STATES ?= 200000
model: ## Search the small worlds of tests/promises further than the tests do: STATES (200000) of each; MODEL_CLOUD=aws for one cloud
	$(call prepared)
	@STATES=$(STATES) MODEL_CLOUD=$(MODEL_CLOUD) cargo test --locked --workspace --test promises -- --nocapture --test-threads 1 model::worlds

SIZE ?= 10000
scale: ## Play SIZE (10000) addresses on a tenth more nodes, in virtual time, and write what it takes into docs/scale.md; not part of .ci/run
	$(call prepared)
	@SIZE=$(SIZE) SCALE_REPORT=docs/scale.md cargo test --locked --workspace --test promises -- --nocapture --test-threads 1 scale::

FUZZ_SECONDS ?= 30
fuzz: ## Fuzz every door at which foreign text comes in, FUZZ_SECONDS (30) each; FUZZ="object azure" for some of them
	$(call needs,fuzz)
	@echo "==> building the fuzz targets with nightly (the first time about 10 minutes on two cores)"
	@cp Cargo.lock fuzz/Cargo.lock
	@CARGO_TARGET_DIR=$(cache)/fuzz/target cargo +nightly build --manifest-path fuzz/Cargo.toml
	@for target in $(or $(FUZZ),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	  echo "==> $$target, $(FUZZ_SECONDS) s"; \
	  mkdir -p $(cache)/fuzz/corpus/$$target $(cache)/fuzz/found; \
	  log=$(cache)/fuzz/$$target.log; \
	  if ! $(cache)/fuzz/target/debug/$$target $(cache)/fuzz/corpus/$$target fuzz/corpus/$$target -max_total_time=$(FUZZ_SECONDS) \
	    -max_len=4096 -timeout=10 -artifact_prefix=$(cache)/fuzz/found/$$target- -print_final_stats=1 >"$$log" 2>&1; then \
	    grep -aE -A4 'panicked|^SUMMARY|written to' "$$log"; echo "$$target does not hold; the whole log: $$log"; exit 1; \
	  fi; \
	  grep -a 'number_of_executed_units' "$$log"; \
	done

check: ## Format, lints, dependencies, generated files, chart, alerts; and that the checkout is clean
	$(call needs,check)
	@echo "==> format"
	@cargo fmt --all --check
	@echo "==> lints (the first time about 4 minutes on two cores)"
	@cargo clippy --locked --workspace --all-targets -- --deny warnings
	@[ -x $(cargo_deny) ] || { echo "==> building cargo-deny $(cargo_deny_version) (once, about 6 minutes on two cores)"; \
	  cargo install --quiet --locked cargo-deny --version $(cargo_deny_version) --root $(cache)/tools/cargo-deny-$(cargo_deny_version) --target-dir $(cache)/tools/build-cargo-deny \
	  && rm -rf $(cache)/tools/build-cargo-deny; }
	@echo "==> dependencies: bans, licenses, sources"
	@$(cargo_deny) --log-level warn --workspace --locked check bans licenses sources
	@echo "==> building (the first time about 5 minutes on two cores)"
	@$(cargo_build)
	@echo "==> generated files"
	@$(operator) crd | cmp - crds/netipallocations.yaml
	@cmp crds/netipallocations.yaml charts/ip-address-controller/files/crds/netipallocations.yaml
	@diff -r dashboards charts/ip-address-controller/files/dashboards
	@$(chart_readme) | cmp - charts/ip-address-controller/README.md
	@echo "==> chart"
	@bin=$$(e2e/tools/build) && "$$bin/helm" lint --strict --quiet charts/ip-address-controller
	@echo "==> alerts"
	@alerts/check
	@echo "==> the checkout is clean"
	@changed=$$(git status --porcelain) && if [ -n "$$changed" ]; then echo "$$changed"; echo "commit or remove these"; exit 1; fi
	@echo "check: all good"

generate: ## Write the CRD from src/api.rs, the chart's copies and its README, and the alerts from the chart to alerts/
	$(call needs)
	@echo "==> building"
	@cargo build --locked --workspace --all-targets
	@mkdir -p crds charts/ip-address-controller/files/crds
	@$(operator) crd > crds/netipallocations.yaml.new
	@mv crds/netipallocations.yaml.new crds/netipallocations.yaml
	@cp crds/netipallocations.yaml charts/ip-address-controller/files/crds/
	@echo "wrote crds/netipallocations.yaml and the chart's copy"
	@rm -rf charts/ip-address-controller/files/dashboards
	@cp -r dashboards charts/ip-address-controller/files/dashboards
	@echo "copied dashboards/ into the chart"
	@$(chart_readme) > charts/ip-address-controller/README.md.new
	@mv charts/ip-address-controller/README.md.new charts/ip-address-controller/README.md
	@echo "wrote the values into charts/ip-address-controller/README.md"
	@alerts/render > alerts/netipallocation.rules.yaml.new
	@mv alerts/netipallocation.rules.yaml.new alerts/netipallocation.rules.yaml
	@echo "wrote alerts/netipallocation.rules.yaml"

pictures: ## Draw the README's pictures from a run of the demo; needs Python with docs/pictures/requirements.txt
	$(call prepared)
	@e2e/tools/build prometheus jaeger >/dev/null
	@docs/pictures/draw $(CARGO_TARGET_DIR)/debug/demo

image: ## The images of operator and simulator, with buildah; not part of .ci/run
	$(call needs,image)
	@.ci/image $(cache)/image

build: ## The operator, the demo and all tests
	$(call prepared)

tools: ## etcd, Kubernetes, kwok and Helm, from pinned Go modules
	$(call needs)
	@e2e/tools/build

# Tools and binaries, each with a line before it takes long.
define prepared
$(call needs)
@echo "==> tools: etcd, Kubernetes, kwok, Helm (the first time about 9 minutes on two cores)"
@e2e/tools/build >/dev/null
@echo "==> building (the first time about 5 minutes on two cores)"
@$(cargo_build)
endef
