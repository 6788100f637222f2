# wharf: build, install, test, measure. `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
ADDR    ?= 127.0.0.1:8080

# Static binaries: they run in an image with nothing else in it. With --target
# the flags are for them alone, not for build scripts and procedural macros.
# sudo's PATH may lack rustc, and `make install-only` needs none.
TRIPLE  := $(or $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p'),$(shell uname -m)-unknown-linux-gnu)
STATIC  := LIBSECCOMP_LINK_TYPE=static \
           LIBSECCOMP_LIB_PATH=/usr/lib/$(subst -unknown,,$(TRIPLE)) \
           RUSTFLAGS="-C target-feature=+crt-static"
CARGO   := cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES := $(TARGET_DIR)/$(TRIPLE)/release

# Which architectures `wharf build` can make images for: this machine's, and the
# other one if ARCHES="amd64 arm64" asks for its wharf-host too.
ARCH    := $(if $(filter aarch64-%,$(TRIPLE)),arm64,amd64)
ARCHES  ?= $(ARCH)
OTHER   := $(if $(filter arm64,$(ARCH)),amd64,arm64)
OTHER_CPU    := $(if $(filter arm64,$(OTHER)),aarch64,x86_64)
OTHER_TRIPLE := $(OTHER_CPU)-unknown-linux-gnu
OTHER_HOST   := $(TARGET_DIR)/$(OTHER_TRIPLE)/release/wharf-host

# A private installation for the tests and the demo.
STAGE := $(abspath $(TARGET_DIR))/stage

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## Install the Debian packages that the build needs
	tests/testbed/packages.sh build

.PHONY: build
build: setup ## Build the static release binaries
	@# Alone, so that it gets no compiler by way of the other binaries' features.
	$(STATIC) $(CARGO) build --locked --release --target $(TRIPLE) -p wharf-host
	$(STATIC) $(CARGO) build --locked --release --target $(TRIPLE) -p wharf -p containerd-shim-wasm
	$(if $(filter $(OTHER),$(ARCHES)),$(MAKE) --no-print-directory host-$(OTHER))

.PHONY: host-arm64 host-amd64
host-arm64: ## Build the wharf-host of arm64 images
host-amd64: ## Build the wharf-host of amd64 images
host-$(ARCH): setup
	$(STATIC) $(CARGO) build --locked --release --target $(TRIPLE) -p wharf-host
host-$(OTHER):
	tests/testbed/packages.sh cross
	toolchain=$$(tests/testbed/cross-toolchain.sh $(OTHER_TRIPLE)) && \
	    env -u RUSTUP_TOOLCHAIN -u RUSTC PATH="$$toolchain/bin:$$PATH" \
	    RUSTFLAGS="-C target-feature=+crt-static -C linker=$(OTHER_CPU)-linux-gnu-gcc" \
	    $(CARGO) build --locked --release --target $(OTHER_TRIPLE) -p wharf-host

.PHONY: install
install: build ## Install wharf and the shim (both names) under PREFIX
	$(MAKE) --no-print-directory install-only

.PHONY: install-only
install-only: ## Install what `make build` has built
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/wharf
	install -m 755 $(BINARIES)/wharf $(BINARIES)/containerd-shim-wasm-v1 $(DESTDIR)$(PREFIX)/bin/
	@# containerd makes a shim's name of a runtime's last two parts: this one
	@# is what `docker run --runtime=io.containerd.wasm` looks for.
	ln -sf containerd-shim-wasm-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-containerd-wasm
	install -m 755 $(BINARIES)/wharf-host $(DESTDIR)$(PREFIX)/libexec/wharf/
	@# Never an earlier installation's: it might not load this wharf's machine code.
	rm -f $(DESTDIR)$(PREFIX)/libexec/wharf/wharf-host-linux-$(OTHER)
	$(if $(filter $(OTHER),$(ARCHES)),install -m 755 $(OTHER_HOST) $(DESTDIR)$(PREFIX)/libexec/wharf/wharf-host-linux-$(OTHER))
	@# To be copied or imported: nobody's configuration is changed here.
	install -d $(DESTDIR)$(PREFIX)/share/wharf/containerd $(DESTDIR)$(PREFIX)/share/wharf/docker
	install -m 644 deploy/containerd/config-v2.toml deploy/containerd/config-v3.toml $(DESTDIR)$(PREFIX)/share/wharf/containerd/
	install -m 644 deploy/docker/daemon.json $(DESTDIR)$(PREFIX)/share/wharf/docker/

.PHONY: deb
deb: build ## Make a Debian package in target/deb
	rm -rf $(TARGET_DIR)/deb
	$(MAKE) --no-print-directory install-only PREFIX=$(abspath $(TARGET_DIR))/deb/prefix DESTDIR=
	deploy/debian/build.sh $(TARGET_DIR)/deb/prefix $(TARGET_DIR)/deb
	rm -rf $(TARGET_DIR)/deb/prefix

.PHONY: uninstall
uninstall: ## Remove what `make install` put under PREFIX
	rm -f $(DESTDIR)$(PREFIX)/bin/wharf $(DESTDIR)$(PREFIX)/bin/containerd-shim-wasm-v1 \
	    $(DESTDIR)$(PREFIX)/bin/containerd-shim-containerd-wasm
	rm -rf $(DESTDIR)$(PREFIX)/libexec/wharf $(DESTDIR)$(PREFIX)/share/wharf

.PHONY: stage
stage: ARCHES = amd64 arm64
stage: ## Install for both architectures into target/stage, for the tests
	$(MAKE) --no-print-directory build install-only PREFIX=$(STAGE) DESTDIR= ARCHES="$(ARCHES)"

# The demo and the benchmark run on this machine alone.
.PHONY: stage-here
stage-here:
	$(MAKE) --no-print-directory stage ARCHES=$(ARCH)

.PHONY: demo
demo: stage-here ## Build the flagship example, pack it and serve it (ADDR=127.0.0.1:8080)
	tests/testbed/packages.sh demo
	examples/python-wasm/build-site.sh
	$(STAGE)/bin/wharf runtimes install python
	$(STAGE)/bin/wharf build examples/python-wasm -t localhost/python-wasm:demo
	tests/demo.sh $(STAGE) localhost/python-wasm:demo $(ADDR)

.PHONY: test
test: root check stage ## Everything: formatting, lints, unit tests, end-to-end tests
	tests/run.sh $(STAGE)

.PHONY: large
large: root stage ## Build and push a file of 4 GiB within 64 MiB of memory (16 GB of disk)
	tests/testbed/setup.sh
	WHARF_BIN_DIR=$(STAGE) $(CARGO) test --locked -p wharf-tests --test e2e -- --ignored --nocapture large::

.PHONY: faults
faults: root stage-here ## Kill shims, helpers, inits and containerd 200 times, under 1.7 and 2.1
	tests/testbed/setup.sh
	WHARF_FAULT_ROUNDS=200 WHARF_BIN_DIR=$(STAGE) $(CARGO) test --locked -p wharf-tests --test e2e -- killed::

.PHONY: cri-suite
cri-suite: root stage-here ## containerd's own CRI tests: our shim passes what runc passes (needs Go)
	tests/testbed/setup.sh
	tests/testbed/cri-suite.sh >/dev/null
	WHARF_BIN_DIR=$(STAGE) $(CARGO) test --locked -p wharf-tests --test cri-suite -- --test-threads 1 --nocapture

.PHONY: test-kubernetes
test-kubernetes: root stage-here ## An app on a Kubernetes of one node: rollout, metrics, reboot (needs Go)
	tests/testbed/setup.sh
	tests/testbed/kubernetes.sh >/dev/null
	WHARF_BIN_DIR=$(STAGE) $(CARGO) test --locked -p wharf-tests --test kubernetes -- --test-threads 1

.PHONY: http-table
http-table: root stage-here ## Write docs/http.md: what wharf, nginx, Caddy and wrangler do
	tests/testbed/packages.sh tests
	tests/testbed/wrangler.sh >/dev/null
	WHARF_HTTP_TABLE=write WHARF_BIN_DIR=$(STAGE) $(CARGO) test --locked -p wharf-tests --test differential

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { \
	    echo "error: the end-to-end tests need root: they start engines in namespaces of their own" >&2; \
	    echo "hint: run \`make test\` as root; \`make check\` and \`cargo test --workspace --exclude wharf-tests\` need none" >&2; \
	    exit 1; }

.PHONY: check
check: setup ## Formatting, lints, licences and spelling
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	tests/lint.sh
	third_party/check.sh

FUZZ_SECONDS ?= 600
FUZZ_TARGETS := reference manifest index tar wharf-json archive request path conditions wharf-toml rules cgi wws
# The dictionary of each target whose own name it does not have.
FUZZ_WORDS_manifest := documents
FUZZ_WORDS_index    := documents
FUZZ_WORDS_archive  := documents
FUZZ_WORDS_path     := request
FUZZ_WORDS_conditions := request

.PHONY: fuzz
fuzz: ## Fuzz what reads foreign input, FUZZ_SECONDS for each target (cargo install cargo-fuzz)
	@# The stable compiler, told to take what libFuzzer needs. Layouts are made
	@# by the hundred a second: in memory, if there is such a place.
	@for target in $(FUZZ_TARGETS); do $(MAKE) --no-print-directory fuzz-$$target || exit 1; done

.PHONY: $(FUZZ_TARGETS:%=fuzz-%)
$(FUZZ_TARGETS:%=fuzz-%): fuzz-%:
	cd fuzz && mkdir -p corpus/$* && RUSTC_BOOTSTRAP=1 TMPDIR=$(or $(wildcard /dev/shm),/tmp) \
	    $(CARGO) fuzz run $* corpus/$* seeds/$* -- -max_total_time=$(FUZZ_SECONDS) \
	    -timeout=20 -rss_limit_mb=1024 -dict=dictionaries/$(or $(FUZZ_WORDS_$*),$*).dict

.PHONY: bench
bench: root stage-here ## Measure against runc + nginx, buildah, umoci, skopeo, crane and wasmtime, side by side
	tests/testbed/setup.sh
	WHARF_BIN_DIR=$(STAGE) tests/bench/bench.sh

.PHONY: soak
soak: root stage-here ## Two million requests with traps, timeouts and aborts (SOAK_REQUESTS=N): no leak, no error
	tests/testbed/setup.sh
	WHARF_BIN_DIR=$(STAGE) tests/soak/soak.sh
