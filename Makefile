# Confine: what people type. Each target is one script or one Go command; see
# CONTRIBUTING.md.

SHELL := /bin/bash
.DEFAULT_GOAL := build

GO := $(shell scripts/find-go)
ifeq ($(GO),)
$(error no Go that is new enough; see the message above)
endif
export GO
export PATH := $(dir $(GO)):$(PATH)

VERSION ?= $(or $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//'),0.1.0-dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
module  := github.com/confinehq/confine
ldflags := -s -w -X $(module)/internal/version.Version=$(VERSION) -X $(module)/internal/version.Commit=$(COMMIT)
gobuild := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(ldflags)'

commands := $(notdir $(wildcard cmd/*))
monitors := $(notdir $(wildcard plugins/*))

.PHONY: build
build: ## build everything into bin/
	@mkdir -p bin/plugins
	@$(gobuild) -o bin/ ./cmd/...
	@$(foreach m,$(monitors),$(gobuild) -o bin/plugins/confine-$(m) ./plugins/$(m) &&) true

.PHONY: demo
demo: ## profile a real redis image from nothing, and use the profile
	@scripts/install-demo-deps
	@$(MAKE) --no-print-directory build
	@scripts/demo

.PHONY: test
test: ## everything that can be checked: lint, generated code, unit and whole-system tests
	@scripts/test

.PHONY: lint
lint: ## formatting, vet, staticcheck, protos, shell scripts, systemd units
	@scripts/lint

.PHONY: generate
generate: ## make generated code anew (eBPF objects when clang is there)
	@scripts/generate

.PHONY: generate-check
generate-check: ## is generated code current?
	@scripts/generate --check

.PHONY: bench
bench: build ## time the analysis against objdump, and a whole profile run
	@bench/run

.PHONY: bench-monitors
bench-monitors: build ## hold the monitors side by side: losses, slowdown, memory
	@bench/run-monitors

.PHONY: images
images: ## make all test images
	@$(GO) run ./test/images/cmd/mkimage --all

.PHONY: fmt
fmt:
	@gofmt -w $$(git ls-files -co --exclude-standard '*.go')

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(if $(filter /usr,$(PREFIX)),/usr/lib/systemd/system,$(SYSCONFDIR)/systemd/system)
export DESTDIR PREFIX SYSCONFDIR UNITDIR

.PHONY: install
install: build ## install into PREFIX (DESTDIR is put before it)
	@scripts/install

.PHONY: uninstall
uninstall: ## remove what install put there; configuration and data stay
	@scripts/install --remove

.PHONY: clean
clean:
	rm -rf bin

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | column -ts '	'
