# hale: everything is `make demo` and `make test`; each fetches what is missing by itself and says so.
SHELL := /bin/bash
GO ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/halevm/hale/internal/version.version=$(VERSION)
AGENT := internal/kernel/agentbin/bin/hale-guest
GO_FILES := $(shell find api cmd internal sdk -name '*.go' -not -name '*_test.go' 2>/dev/null) go.mod go.sum

.PHONY: build demo test unit reference compat prometheus e2e crash soak soak-boot lint gen check-gen bench microbench fuzz mutants clean

build: bin/hale

# The guest agent is PID 1 of every machine: static, and embedded in the one binary.
$(AGENT): $(GO_FILES)
	@mkdir -p $(@D)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./cmd/hale-guest

bin/hale: $(AGENT) $(GO_FILES)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/hale

# A first look: an image, a machine, its health, in less than a minute after set-up.
demo: build
	@$(GO) run ./examples/demo

test: lint unit reference compat prometheus e2e

# Needs no root, no virtual machine and no network.
unit: $(AGENT)
	@tools/need.sh gcc gcc libc6-dev # for the race detector
	@tools/need.sh e2fsck e2fsprogs # which checks the disks of images
	$(GO) test -race -timeout 15m ./...
	$(GO) test -run ^TestLarge ./internal/image # which is too much with the race detector
	cd bench && $(GO) test -race -timeout 5m ./...
	cd tools && $(GO) test -race -timeout 5m ./...

# A million random histories, put to the decision about health and to what was written from the rules' text alone. make unit puts 20,000.
reference:
	HALE_HISTORIES=1000000 $(GO) test -timeout 15m -v -run TestNext ./internal/health/reference

# The public client of the API that ours is compatible with, unchanged. lint has seen to npm.
compat: lint
	@test/compat/run.sh

# A real Prometheus scrapes a daemon with what examples/prometheus says; its alerts are tested.
prometheus: build
	@test/prometheus/run.sh

# Boots real virtual machines.
e2e: build
	@test/e2e/run.sh

# Kills daemons at random moments of random work: make crash SEED=N. make test does the same with seeds of its own.
crash: build
	HALE_CRASH_SEED=$(SEED) $(GO) test -count=1 -v -run TestCrash ./test/crash
	HALE_CRASH_SEED=$(SEED) test/e2e/run.sh -run TestCrashMachines

# Two hundred boots in a row, each to healthy and deleted.
soak-boot: build
	HALE_E2E_TAGS=soak test/e2e/run.sh -run TestSoakBoot

lint: check-gen
	@test -z "$$(gofmt -l api cmd internal sdk test examples bench tools | tee -a /dev/stderr)"
	$(GO) vet -tags e2e,soak,prometheus ./...
	$(TOOL) staticcheck -tags e2e,soak,prometheus ./...
	cd bench && $(GO) vet ./... && $(GO) tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...
	cd tools && $(GO) vet ./... && $(GO) tool staticcheck ./...
	@tools/lint-openapi.sh

gen:
	$(GO) generate ./...

check-gen:
	@tools/check-gen.sh

# Everything beside its reference, in one table below bench/results: about half an hour. ONLY=boot,image runs some of it.
bench: build
	@bench/run.sh $(if $(ONLY),-only $(ONLY)) $(if $(AGAINST),-against $(AGAINST))

# An hour, or as long as HALE_SOAK says, of targets that fail at random, and whether what the engine says of them is what they did.
soak: build
	@bench/run.sh -only soak

# What single functions take.
microbench: $(AGENT)
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Changes one thing after another in the health engine's decision and loop, and tells which change no test notices: a quarter of an hour.
# docs/design/0009-mutants.md explains the few that may. ONLY=text runs those whose description holds it.
mutants:
	cd tools && $(GO) run ./mutants -explained ../docs/design/0009-mutants.md -only '$(ONLY)' -quick 'TestMonitor|TestMemory|TestHistoryIsBounded' -never TestMemory \
		../internal/health/{state,pace,hint,transition,loop,probing,mail,timers,alarms,policies,flight,crew,durable,writer,queue,suspect}.go

# Twenty seconds for each decoder of outside bytes.
fuzz: $(AGENT)
	@tools/fuzz.sh 20s

clean:
	rm -rf bin internal/kernel/agentbin/bin/hale-guest
