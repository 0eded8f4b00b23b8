# Everything that is done with this repository, by name. `make` lists it. The recipes are thin: logic lives in the crates.
#
# Variables: DATA (data folder of `make run`), HTTP (its address, for QUIC too), CHAOS_S, CHAOS_SEED and CHAOS_LOSS (`make chaos`), FUZZ_S
# (`make fuzz`), MEASURE (which figure `make measure` takes), SCENARIO (what `make load` plays).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DATA ?= data
HTTP ?= 127.0.0.1:8080
CHAOS_S ?= 600
CHAOS_SEED ?= $(shell date +%s)
CHAOS_LOSS ?= 5
FUZZ_S ?= 60
MEASURE ?= all
SCENARIO ?= direct
PYTHON := target/python
BENCH_PYTHON := target/bench-python

# Rust may have been installed by `make setup` a moment ago, into a PATH that this shell does not know yet.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin
CARGO ?= cargo
# The programs as the tests want them: able to be killed at a failpoint.
FAILPOINTS := --features conch-gateway/failpoints

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-12s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## Install what is missing: a C compiler (apt), the Rust toolchain (rustup)
	@command -v cc >/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends gcc libc6-dev); }
	@command -v cargo >/dev/null || { command -v curl >/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends curl ca-certificates); }; \
		curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --no-modify-path --default-toolchain none; }
	@cargo --version >/dev/null

.PHONY: setup-test
setup-test: setup $(PYTHON)/installed ## Install what the tests need besides: what builds the pinned flatc, nginx, HAProxy, a Python of their own, wasm32
	@rustup target add wasm32-unknown-unknown
	@{ command -v cmake && command -v ninja && command -v c++; } >/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends cmake ninja-build g++); }
	@{ command -v nginx && command -v haproxy; } >/dev/null || { $(call as_root,apt-get update) && $(call without_daemons,apt-get install -y --no-install-recommends nginx-light haproxy); }

# The independent clients in e2e/interop; the packages are pinned by their hashes.
$(PYTHON)/installed: e2e/interop/requirements.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends python3 python3-venv); }
	python3 -m venv --clear $(PYTHON)
	$(PYTHON)/bin/python3 -m pip install --quiet --require-hashes -r $<
	@touch $@

.PHONY: setup-bench
setup-bench: setup $(BENCH_PYTHON)/installed ## Install what Conch is compared with: NATS (PyPI, pinned by its hash), Mosquitto (apt)
	@[ -x /usr/sbin/mosquitto ] || { $(call as_root,apt-get update) && $(call without_daemons,apt-get install -y --no-install-recommends mosquitto); }

$(BENCH_PYTHON)/installed: loadtest/peers/requirements.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends python3 python3-venv); }
	python3 -m venv --clear $(BENCH_PYTHON)
	$(BENCH_PYTHON)/bin/python3 -m pip install --quiet --require-hashes -r $<
	@touch $@

# Debian starts what it installs; tests start their own proxies and leave none behind.
without_daemons = $$([ "$$(id -u)" = 0 ] || echo sudo) sh -c 'policy=/usr/sbin/policy-rc.d; own=; \
	[ -e $$policy ] || { own=1; printf "\#!/bin/sh\nexit 101\n" > $$policy; chmod +x $$policy; }; \
	$(1); status=$$?; [ -z "$$own" ] || rm -f $$policy; exit $$status'

as_root = $$([ "$$(id -u)" = 0 ] || echo sudo) $(1)

.PHONY: build
build: setup page ## Build the programs for tests (with failpoints), and the page in them
	$(CARGO) build --workspace --bins --locked $(FAILPOINTS)

# The web page needs Node. Without it the programs are complete but for the page.
WEB := clients/web
WEB_SOURCES := $(shell find $(WEB)/sdk/src $(WEB)/react/src $(WEB)/page/src $(WEB)/page/public -type f 2>/dev/null) $(wildcard $(WEB)/*/*.json $(WEB)/*/*.ts $(WEB)/*/*.mjs $(WEB)/page/index.html)

.PHONY: page
page: ## Build the web page, for the next build of the program to take in (needs npm)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(WEB)/page/dist/index.html; \
		else echo 'npm is not here: the program is built without its web page'; fi

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-audit --no-fund
	@touch $@

$(WEB)/page/dist/index.html: $(WEB)/node_modules/.package-lock.json $(WEB_SOURCES)
	cd $(WEB) && npm run build

.PHONY: web-test
web-test: build ## Test the TypeScript SDK, the React hooks, and the page, in Node and a real Chromium (installed if missing)
	@command -v npm >/dev/null || { echo 'the web client needs Node 20 and npm' >&2; exit 1; }
	@command -v chromium >/dev/null || [ -n "$${CHROMIUM:-}" ] || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends chromium); }
	cd $(WEB) && npm run check && npm test && npm run test:browser

.PHONY: web-docs
web-docs: $(WEB)/node_modules/.package-lock.json ## Write the API pages of the TypeScript SDK and the React hooks to clients/web/docs-out
	cd $(WEB) && npm run docs

.PHONY: web-figures
web-figures: setup page ## Take the figures of the page: sizes, cold start, memory, send to display (on a quiet machine)
	@command -v chromium >/dev/null || [ -n "$${CHROMIUM:-}" ] || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends chromium); }
	$(CARGO) build --release --locked -p conch-gateway
	cd $(WEB) && npm run figures

.PHONY: run
run: setup page ## Build, start a node with its data in ./data, and say how to join
	$(CARGO) build --release --locked -p conch-gateway -p conch-chat
	@printf '%s\n' '' \
		"  Conch listens on http://$(HTTP), data in $(DATA)/. Stop it with Ctrl-C; run it again and all is there." \
		'  To chat, open that address in two browser windows, one for each person; or two more terminals in this folder:' '' \
		'    target/release/conch-chat --server http://$(HTTP) --data ada      then type  /signup ada' \
		'    target/release/conch-chat --server http://$(HTTP) --data grace    then type  /signup grace  and  /dm ada' ''
	@exec target/release/conch serve --dev --data $(DATA) --http $(HTTP) --quic $(HTTP)

.PHONY: lint
lint: setup ## Check formatting, lints and the SDK's documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked $(FAILPOINTS) -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc -p conch-client --no-deps --locked --quiet

.PHONY: test
test: setup-test lint build wasm ## All tests: lints, units, properties, end to end with real processes, a short kill proof
	$(CARGO) test --workspace --locked $(FAILPOINTS)
	@$(MAKE) --no-print-directory web-test

.PHONY: wasm
wasm: setup ## Build the core of the Rust SDK for wasm32, where it has neither system nor runtime
	@rustup target add wasm32-unknown-unknown || { echo 'the target wasm32-unknown-unknown cannot be installed: the core is NOT checked for it' >&2; exit 1; }
	$(CARGO) build --locked -p conch-client --no-default-features --target wasm32-unknown-unknown

.PHONY: chaos
chaos: build ## Kill a node again and again under load for CHAOS_S seconds; ends with one verdict line
	target/debug/conch-load chaos --seconds $(CHAOS_S) --seed $(CHAOS_SEED) --loss-percent $(CHAOS_LOSS)

.PHONY: fuzz
fuzz: setup ## Fuzz the frame splitter, every decoder and the WebSocket carrier, FUZZ_S seconds each
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	@for target in split client_frame server_frame event_body websocket; do \
		$(CARGO) fuzz run -s none $$target -- -max_total_time=$(FUZZ_S) -max_len=65536; \
	done

.PHONY: measure
measure: setup ## Measure a release build: MEASURE = all, ack, cpu, fanout, start, idle, connect, transports, fallback, resume, checker
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	target/release/conch-load measure $(MEASURE)

.PHONY: sdk-size
sdk-size: setup ## Size of a program with the whole Rust SDK in it, and of one with nothing in it (release, without symbols)
	$(CARGO) build --release --locked -p conch-client --example hello
	@strip -o target/release/with-sdk target/release/examples/hello
	@echo 'fn main() {}' | rustc --edition 2024 -O -C strip=symbols --crate-name nothing -o target/release/without-sdk -
	@printf 'with the SDK %s bytes, without %s\n' "$$(wc -c < target/release/with-sdk)" "$$(wc -c < target/release/without-sdk)"

.PHONY: load
load: setup ## Play the load scenario SCENARIO on a node of its own; the report goes to target/load
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	target/release/conch-load run $(SCENARIO) --spawn

.PHONY: bench
bench: setup-bench ## Conch beside its peers: the core cases, 3 interleaved rounds (15 minutes), into target/bench/ and docs/performance.md
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	target/release/conch-load bench --rounds 3 --seconds 2 --saturated-seconds 15 --document docs/performance.md

.PHONY: bench-full
bench-full: setup-bench ## The same with 5 rounds and longer runs (an hour)
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	target/release/conch-load bench --rounds 5 --seconds 10 --saturated-seconds 60 --document docs/performance.md

.PHONY: flames
flames: setup ## Flame graphs of a release build under each kind of load, into target/flames/ (installs perf and inferno if missing)
	@command -v perf >/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends linux-perf); }
	@command -v pgrep >/dev/null || { $(call as_root,apt-get update) && $(call as_root,apt-get install -y --no-install-recommends procps); }
	@command -v inferno-flamegraph >/dev/null || $(CARGO) install inferno --locked
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	tools/flames.sh target/flames

.PHONY: growth
growth: setup ## See which costs grow with members, connections, channels, stored messages; into target/bench/growth.json (half an hour)
	$(CARGO) build --release --locked -p conch-gateway -p conch-loadtest
	target/release/conch-load growth

.PHONY: clean
clean: ## Remove what was built (data folders stay)
	$(CARGO) clean
