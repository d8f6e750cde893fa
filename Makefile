# Every target installs what it needs first (tests/setup), and nothing that is there already.

export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test build fmt bench bench-peers bench-instructions clean-tests

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 27

demo: ## the whole story on this machine: a bot without Pillion, then with it
	@tests/setup build
	cargo build --release --bin pillion
	cargo run --quiet --release --bin pillion -- demo $(ARGS)

test: ## every check and test, the official clients included
	@tests/setup tests
	@tests/run

bench: ## Pillion and its peers measured in turns: QUICK=1, ROUNDS=5 SECONDS=4 ONLY=S1,S2 PEERS=nginx JSON=FILE
	@tests/setup bench
	cargo build --release --bin pillion
	cargo build --quiet --release --manifest-path tests/bench/load/Cargo.toml --target-dir target/bench
	@tests/bench/run $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) $(if $(JSON),--json $(JSON)) $(ARGS)

bench-peers: ## what make bench measures against besides Debian's packages: Envoy, LiteLLM, Portkey
	@tests/setup peers

bench-instructions: ## instruction counts of the pure pieces against tests/bench/instructions.txt; UPDATE=1 writes it
	@tests/setup counts
	@tests/bench/instructions $(if $(UPDATE),--update)

build: ## the release binary
	@tests/setup build
	cargo build --release

fmt: ## format the source
	cargo fmt

clean-tests: ## remove what the client tests installed
	rm -rf .venv tests/clients/node_modules
