# Every target installs what it needs first (tests/setup), and nothing that is there already.

export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test model races build fmt bench bench-faults bench-growth bench-hits bench-instructions bench-memory bench-peers
.PHONY: bench-tools bench-trim bench-window clean-tests profile redis-faults release soak window

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 27

demo: ## the whole story on this machine: a bot without Pillion, then with it
	@tests/setup build
	cargo build --release --bin pillion
	cargo run --quiet --release --bin pillion -- demo $(ARGS)

test: ## every check and test, the official clients included
	@tests/setup tests
	@tests/run

MODEL = cargo test --manifest-path tests/model/Cargo.toml --target-dir target/model

model: ## a million schedules of fences and store, a million pairs of keys: some minutes on one core
	@tests/setup build
	PILLION_MODEL=1 $(MODEL)
	PILLION_MODEL=1 cargo test --release --lib isolation

window: ## a million histories per dialect through the window against a strict validator: some minutes
	@tests/setup build
	PILLION_WINDOW_HISTORIES=1000000 cargo test --release --test window -- --nocapture

races: ## searches that race with writes over HTTP, two instances and a real Redis among them: some minutes
	@tests/setup tests
	PILLION_RACES=100 cargo test --release --test integration races:: -- --nocapture --test-threads 1

RUN = tests/bench/run $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	$(if $(JSON),--json $(JSON)) $(if $(MARKDOWN),--markdown $(MARKDOWN)) $(ARGS)
# What is measured: the binary as it is shipped, or with PLAIN=1 the one that `make build` makes.
BINARY = $(if $(PLAIN),cargo build --quiet --release --bin pillion && echo target/release/pillion,deploy/release)
LOAD = cargo build --quiet --release --manifest-path tests/bench/load/Cargo.toml --target-dir target/bench

bench-tools:
	@tests/setup bench
	@$(LOAD)

bench: bench-tools ## Pillion and its peers in turns: QUICK=1, ROUNDS=5 SECONDS=4 ONLY=S1,S2 PEERS=nginx JSON= MARKDOWN= PLAIN=1
	@binary=$$($(BINARY)) && $(RUN) --pillion $$binary $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS))

bench-growth: bench-tools ## what a request costs by size, messages, open streams and entries, beside nginx
	@binary=$$($(BINARY)) && $(RUN) --pillion $$binary --only S1,P10,P100,P1000,T20,S3,T2000,S7,S2m --peers nginx

bench-faults: ## upstreams that fail, reset, stall, refuse and hang up, at full size, and a table of it: some minutes
	@tests/setup tests
	@tests/bench/faults

bench-hits: ## hits in one process, without sockets: on two cores against one, among a million entries against a thousand
	@tests/setup build
	cargo bench --profile release --bench hits

bench-peers: ## what make bench measures against besides Debian's packages: Envoy, Traefik, LiteLLM, Portkey
	@tests/setup peers

soak: bench-tools ## half an hour of a bot's days, and whether memory stays flat: MINUTES=30
	@binary=$$($(BINARY)) && tests/bench/soak --pillion $$binary $(if $(MINUTES),--minutes $(MINUTES))

redis-faults: bench-tools ## Redis fails in nine ways at 1,000 requests a second: ONLY=killed,stopped
	@binary=$$($(BINARY)) && tests/bench/redis-faults --pillion $$binary $(if $(ONLY),--only $(ONLY))

bench-memory: bench-tools ## a million searches of 20 KB: what stays resident, and what lies in Redis: COUNT=1000000
	@binary=$$($(BINARY)) && tests/bench/memory --pillion $$binary $(if $(COUNT),--count $(COUNT))

profile: bench-tools ## where a request's time goes, by perf: SCENARIO=S1 SECONDS=10
	@tests/setup profile
	CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none RUSTFLAGS="-C force-frame-pointers=yes" \
		cargo build --release --bin pillion --target-dir target/profile
	@tests/bench/profile $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SECONDS),--seconds $(SECONDS))

bench-instructions: ## instruction counts of the pure pieces against tests/bench/instructions.txt; UPDATE=1 writes it
	@tests/setup counts
	@tests/bench/instructions $(if $(UPDATE),--update)

bench-trim: ## what trimming 200 KB and 20 MB costs beside serde_json's RawValue and Value; fails above 0.22 and a third, or a fifth
	@tests/setup build
	cargo bench --quiet --profile release --bench trim

bench-window: ## what the window does to a provider's prompt cache, in 200 turns: fails where step: 10 keeps less than 80 %
	@tests/setup build
	cargo bench --quiet --bench window

build: ## the release binary, the quick way
	@tests/setup build
	cargo build --release

release: ## the binary as it is shipped, its code laid out by a profile of a bot's day: prints where it is
	@tests/setup build
	@deploy/release

fmt: ## format the source
	cargo fmt

clean-tests: ## remove what the client tests installed
	rm -rf .venv tests/clients/node_modules
