# What a newcomer types: make demo, make test.

GO   ?= go
TAGS := synctests
PKGS  = $(shell $(GO) list ./... | grep -v '/\(test\|examples\)\(/\|$$\)')

# The command is static. The demo is built alike, so that what they share is compiled
# once: on a fresh machine that is most of the wait.
BUILD_ENV := CGO_ENABLED=0

# Built and run by Go itself, so that the version is the same for everyone.
GOLANGCI := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help
.PHONY: help build demo example test test-unit test-e2e test-page test-deploy release lint mutants nemesis sim bench profile docker clean FORCE
.NOTPARALLEL: # the tests take all cores, one kind after the other

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bin/outboxcdc ## see it work: Postgres, a broker and a workload, all on this machine
	@$(BUILD_ENV) $(GO) run -trimpath ./test/demo -outboxcdc bin/outboxcdc

example: bin/outboxcdc ## see a whole story: orders, billing on RabbitMQ, a warehouse on Kafka
	@$(BUILD_ENV) $(GO) run -trimpath ./examples/orders -outboxcdc bin/outboxcdc

test: test-unit test-e2e ## everything that must hold: unit tests, then real Postgres and Kafka

test-unit: ## unit and bubble tests with the race detector
	$(GO) test -race -tags $(TAGS) $(PKGS)

# These tests wait more than they work, so more of them run at a time than there are cores.
test-e2e: ## end to end on real servers, fetched once when the machine has none
	$(GO) test -tags $(TAGS) -count 1 -parallel 4 -timeout 60m ./test/... ./examples/...

test-page: ## the status page in a real Chromium; SCREENS=dir keeps what it looks like
	$(GO) test -tags $(TAGS),chromium -count 1 -run ThePage ./cmd/outboxcdc $(if $(SCREENS),-screens $(abspath $(SCREENS)))

test-deploy: ## chart, alerts and dashboard against helm, Kubernetes' schemas and promtool
	deploy/check.sh

SEEDS ?= 10000

sim: ## SEEDS simulated worlds (10000) from seed FIRST (1): nothing lost, nothing reordered
	$(GO) test -tags $(TAGS) -count 1 -timeout 0 -v -run TestSimulated ./test/sim -seeds $(SEEDS) -first $(or $(FIRST),1)

mutants: ## plant one bug after the other, two at a time: each must be caught (RUN=name, SHARD=1/2)
	$(GO) run ./test/mutants $(if $(RUN),-run "$(RUN)") $(if $(SHARD),-shard $(SHARD))

nemesis: ## break things for DURATION=10m and prove that nothing is lost; SEED repeats a run, BROKER=rabbitmq
	$(GO) test -tags $(TAGS) -count 1 -timeout 0 -v ./test/nemesis $(if $(SEED),-nemesis.seed=$(SEED)) \
		$(if $(filter rabbitmq,$(BROKER)),-run RabbitMQ -nemesis.rabbitmq,-run Whatever -nemesis.duration)=$(or $(DURATION),10m)

bench: ## measure PARTS=drain,… over ROUNDS=5 of EVENTS=1000000, beside what bounds it
	@$(GO) run ./test/bench $(if $(PARTS),-parts $(PARTS)) $(if $(BESIDE),-beside $(BESIDE)) -rounds $(or $(ROUNDS),5) -events $(or $(EVENTS),1000000)

profile: ## where the CPU goes while EVENTS=1000000 are drained: cpu1.prof, cpu2.prof
	@$(GO) run ./test/bench -parts profile -events $(or $(EVENTS),1000000)

recoveries: ## lose and recover a slot under load, RUNS=200 times: nothing missing
	$(GO) test -tags $(TAGS) -count 1 -timeout 0 -v -run TestARecoveryUnderLoad ./test -recover.runs=$(or $(RUNS),200)

# What the hot path costs, part by part and as a whole. Kept in bin/ under NAME; with
# OLD, the name of an earlier run, both are compared.
BENCHSTAT := $(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

.PHONY: gobench
gobench: ## benchmarks of the hot path: COUNT=6 runs, NAME=new, compared with OLD=old
	@mkdir -p bin
	$(GO) test -tags $(TAGS) -run '^$$' -bench . -benchmem -count $(or $(COUNT),6) \
		./wal ./outbox ./checkpoint ./sink ./pipeline | tee bin/bench-$(or $(NAME),new).txt
	@$(BENCHSTAT) $(if $(OLD),bin/bench-$(OLD).txt) bin/bench-$(or $(NAME),new).txt

.PHONY: memory
memory: ## how much it takes: broker away for OUTAGE=10m, a transaction of ROWS=1000000, LARGE=2000 rows of 1 MB
	$(GO) test -tags $(TAGS) -count 1 -timeout 0 -v -run 'TestMemory|TestRowsOfAMegabyte' ./test \
		-memory.outage=$(or $(OUTAGE),10m) -memory.rows=$(or $(ROWS),1000000) -memory.large=$(or $(LARGE),2000)

lint: ## the rules of .golangci.yml
	$(GOLANGCI) run ./...
	$(GO) vet -tags profiles ./cmd/outboxcdc

build: bin/outboxcdc ## the command, into bin/

# Go knows better than make what has changed. Where git refuses to read the clone,
# such as another user's, the binary goes without a version rather than unbuilt.
bin/outboxcdc: FORCE
	@echo 'go build ./cmd/outboxcdc'
	@$(BUILD_ENV) $(GO) build -trimpath -o $@ \
		-buildvcs=$$(git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false) ./cmd/outboxcdc

# Twice from the same source, in other directories: the same bytes.
release: ## the binaries of a release for each system, into dist/, and that they are reproducible
	deploy/release.sh

.PHONY: docs
docs: ## the documentation as a site, into dist/site
	@$(GO) run ./docs/site -out dist/site

.PHONY: test-docker
test-docker: ## the Dockerfile, built and run by Debian's Docker engine; needs root, not Docker
	test/docker-build.sh

docker: ## the image outboxcdc:local
	docker build --tag outboxcdc:local .

clean: ## what was built; not the cache of test servers
	rm -rf bin dist dist.docs
