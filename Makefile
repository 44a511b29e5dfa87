# KFS: one non-recursive Makefile. `make help` lists the targets.
#
# Variants share the rules: V= (plain), asan, tsan, fault (fault points), lint (warnings are errors); each has its own tree
# build/, build/asan, … Prefixes: PREFIX (/usr/local), DESTDIR. JOBS: how many
# compilers at once. SHOW=1: whole command lines.

V       ?=
B       := build$(if $(V),/$(V))
VERSION := 0.1
PREFIX  ?= /usr/local
E       := $(if $(SHOW),,@)
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
CC      ?= cc
CROSS_CC ?= aarch64-linux-gnu-gcc
MUSL_CC ?= musl-gcc
MUSL    := $(if $(SAN)$(filter-out lint,$(V)),,$(shell command -v $(MUSL_CC) 2>/dev/null))
OPT     ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith \
           -Wcast-qual -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough=5 -Wconversion -Wno-sign-conversion $(WERROR.$(V))
WERROR.lint := -Werror
WERROR.aarch64 := -Werror
SAN.asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN.tsan := -fsanitize=thread -fno-omit-frame-pointer
SAN.fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN     := $(SAN.$(V))
# Inside the programs: the sanitizer is ready before a preloaded libkfs.so.
SANLIB.asan := -static-libasan
SANLIB.tsan := -static-libtsan
LDHARDEN.san := $(if $(findstring clang,$(CC)),,$(SANLIB.$(V)))
FAULT   := $(if $(KFS_FAULTS)$(filter-out lint,$(V)),-DKFS_FAULTS=1)
CFLAGS_ALL := -std=gnu11 -D_GNU_SOURCE -I. -fvisibility=hidden -DKFS_VERSION=\"$(VERSION)\" $(OPT) $(WARN) \
           $(FAULT) $(CFLAGS)
HARDEN  := -fstack-protector-strong $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,defs,--as-needed $(LDHARDEN.san)
# Atomics by calls into libgcc ask libc for the processor's abilities before main.
SHIMARCH.aarch64 := -mno-outline-atomics
# The shim: no fortify (it defines those names), no stack protector (it runs before libc is ready), initial-exec TLS.
SHIMFLAGS := -std=gnu11 -D_GNU_SOURCE -I. -fvisibility=hidden -fPIC $(OPT) $(WARN) -U_FORTIFY_SOURCE -fno-stack-protector \
           -ftls-model=initial-exec -fno-builtin-printf -fno-exceptions $(SHIMARCH.$(V)) $(CFLAGS)

pure.src  := $(wildcard base/pure/*.c)
base.src  := $(wildcard base/*.c)
meta.src  := $(wildcard meta/*.c)
blk.src   := $(wildcard blockstore/*.c)
com.src   := $(wildcard tools/common/*.c)
kfsd.src  := $(wildcard tools/kfsd/*.c)
kfs.src   := $(wildcard tools/kfs/*.c)
run.src   := $(wildcard tools/kfs-run/*.c)
shim.src  := $(wildcard preload/*.c preload/*.S)
unit.src  := $(wildcard tests/unit/*/test_*.c)
probe.src := $(wildcard tests/preload/probes/*.c)
bench.src := $(wildcard tests/bench/*.c)
missed.src := $(wildcard tests/missed/*.c)
fuzz.src  := $(wildcard tests/fuzz/fuzz_*.c)

# Changed flags rebuild everything that they were used for.
FLAGS := $(CC) $(CFLAGS_ALL) $(SAN) $(HARDEN) $(LDHARDEN) $(SHIMFLAGS)
$(shell mkdir -p $(B); printf '%s\n' '$(FLAGS)' | cmp -s - $(B)/flags || printf '%s\n' '$(FLAGS)' > $(B)/flags)

obj   = $(patsubst %,$(B)/obj/%.o,$(1))
LIBS_META  := -lsqlite3 -lmariadb
LIBS_BLK   := -lcurl -lcrypto -lexpat -lzstd -lxxhash -lm
LIBS_BASE  := -lpthread

BINS  := $(B)/bin/kfsd $(B)/bin/kfs $(B)/bin/kfs-run
UNITS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(unit.src))
PROBES := $(patsubst tests/preload/probes/%.c,$(B)/probes/%,$(probe.src))
MISSED := $(patsubst tests/missed/%.c,$(B)/missed/%,$(missed.src))
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz$(if $(filter fuzz,$(V)),,-once)/%,$(fuzz.src))
BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(bench.src))

.PHONY: all bins fuzz fuzzers objects shim units probes benches run test check unit lint asan tsan missed cross test-ml analyze test-suites scoreboard bench docs install clean help
.DELETE_ON_ERROR:
all: $(BINS) $(if $(SAN),,$(B)/lib/libkfs.so) $(if $(MUSL),$(B)/lib/libkfs-musl.so) ## build everything (build/bin, build/lib)

help: ## this list
	@sed -n 's/^\([a-z -]*\):.*## /  make \1	/p' Makefile | expand -t 20

# --- programs -------------------------------------------------------------------------------------------------
$(B)/libkfs-core.a: $(call obj,$(pure.src) $(base.src) $(meta.src) $(blk.src) $(com.src))
	@rm -f $@; $(AR) rcs $@ $^
$(B)/bin/kfsd: $(call obj,$(kfsd.src)) $(B)/libkfs-core.a
$(B)/bin/kfs: $(call obj,$(kfs.src)) $(B)/libkfs-core.a
$(B)/bin/kfs-run: $(call obj,$(run.src)) $(B)/libkfs-core.a
$(BINS):
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) $(SAN) $(LDHARDEN) -o $@ $^ $(LIBS_META) $(LIBS_BLK) $(LIBS_BASE) $(LDFLAGS)

# --- the shim: its own objects, libc alone ---------------------------------------------------------------------
SHIM_OBJS := $(patsubst %,$(B)/shim/%.o,$(shim.src) $(pure.src))
$(B)/lib/libkfs.so: $(SHIM_OBJS) preload/exports.map
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) -shared -o $@.new $(SHIM_OBJS) -Wl,-soname,libkfs.so,-z,start-stop-visibility=hidden -Wl,-z,defs,-z,relro,-z,now -Wl,--version-script=preload/exports.map $(LDFLAGS)
	@mv -f $@.new $@ # whole or not at all: running programs have the old one mapped, starting ones preload it
$(B)/shim/%.o: % $(B)/flags
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) $(SHIMFLAGS) -MMD -MP -c -o $@ $<

# The same for programs of musl, where musl-gcc is installed. The kernel's headers are anybody's.
MUSL_OBJS := $(patsubst %,$(B)/musl/%.o,$(shim.src) $(pure.src))
$(B)/lib/libkfs-musl.so: $(MUSL_OBJS) preload/exports.map
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(MUSL_CC) -shared -o $@ $(MUSL_OBJS) -Wl,-soname,libkfs-musl.so -Wl,-z,defs,-z,relro,-z,now -Wl,--version-script=preload/exports.map $(LDFLAGS)
$(B)/musl/%.o: % $(B)/flags
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(MUSL_CC) $(SHIMFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.o: % $(B)/flags
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) $(CFLAGS_ALL) $(SAN) $(HARDEN) -MMD -MP -c -o $@ $<

# --- tests ------------------------------------------------------------------------------------------------------
$(B)/tests/%: tests/unit/%.c $(B)/libkfs-core.a
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) $(CFLAGS_ALL) $(SAN) $(HARDEN) -MMD -MP -o $@ $< $(B)/libkfs-core.a $(LIBS_META) $(LIBS_BLK) $(LIBS_BASE)
$(B)/probes/%: tests/preload/probes/%.c
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) -std=gnu11 -D_GNU_SOURCE -I. $(OPT) -Wall -Wextra -MMD -MP -o $@ $< -lpthread -ldl
$(B)/missed/%: tests/missed/%.c
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) -std=gnu11 -D_GNU_SOURCE -I. $(OPT) -Wall -Wextra -Werror -MMD -MP -o $@ $<
$(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) -std=gnu11 -D_GNU_SOURCE -I. -O2 -Wall -Wextra -MMD -MP -o $@ $< -lpthread

# Fuzzers: with V=fuzz and clang they search; otherwise once.c gives them the inputs of tests/fuzz/corpus.
FUZZ_MAIN := $(if $(filter fuzz,$(V)),,$(B)/obj/tests/fuzz/once.c.o)
kfsd.parts := $(call obj,$(filter-out %/main.c %/server.c,$(kfsd.src))) # fuzz_wire.c contains those two
$(filter %/wire,$(FUZZERS)): $(kfsd.parts)
$(FUZZERS): $(dir $(firstword $(FUZZERS)))%: tests/fuzz/fuzz_%.c $(FUZZ_MAIN) $(B)/libkfs-core.a
	@mkdir -p $(@D); echo "  cc $@"
	$(E)$(CC) $(CFLAGS_ALL) $(SAN) $(if $(FUZZ_MAIN),,-fsanitize=fuzzer) $(HARDEN) -MMD -MP -MF $@.d -o $@ $< $(FUZZ_MAIN) \
	$(if $(filter %/wire,$@),$(kfsd.parts)) $(B)/libkfs-core.a $(LIBS_META) $(LIBS_BLK) $(LIBS_BASE)

bins: $(BINS)
objects: $(call obj,$(pure.src) $(base.src) $(meta.src) $(blk.src) $(com.src) $(kfsd.src) $(kfs.src) $(run.src)) $(SHIM_OBJS)
shim: $(B)/lib/libkfs.so
fuzzers: $(FUZZERS)
units: $(UNITS)
probes: $(PROBES)
benches: $(BENCHES)

# --- what people call; those that need more than a compiler install it first -----------------------------------------
MAKE_Q := $(MAKE) --no-print-directory -j$(JOBS)
run: ## the main job: a tree and a training run on a volume, kfsd killed, every byte verified
	@tests/lib/deps demo
	@$(MAKE_Q) all
	@tests/demo/run.sh

test: ## all tests
	@tests/lib/deps test
	@$(MAKE_Q) all units probes fuzzers
	@$(MAKE_Q) V=fault bins
	@tests/lib/run-all

check: units ## quick: unit tests, layers, the shim's symbols
	@$(MAKE_Q) all
	@tests/lib/run-units $(UNITS)
	@tests/lint/layers.sh && tests/lint/shim-symbols.sh && tests/lint/shim-exports.sh

unit: units ## unit tests
	@tests/lib/run-units $(UNITS)

lint: ## warnings as errors, cppcheck, layers, the shim's symbols, generated documents
	@tests/lib/deps lint
	@$(MAKE_Q) V=lint all units
	@tests/lint/run

# The shim itself stays plain: the sanitizers' libraries and a preloaded one fight over load order.
SAN_TESTS ?= $(wildcard tests/badinput/*.sh tests/crash/*.sh)
asan tsan: ## unit tests, and tests around kfsd, under a sanitizer (tsan likewise)
	@tests/lib/deps test
	@$(MAKE_Q) all probes
	@$(MAKE_Q) V=$@ all units fuzzers
	@tests/lib/run-units $(patsubst tests/unit/%.c,build/$@/tests/%,$(unit.src))
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 KFS_SAN=$@ KFS_FUZZERS=$(CURDIR)/build/$@/fuzz-once KFS_BIN=$(CURDIR)/build/$@/bin \
	KFS_TEST_LOGS=build/$@/test-logs tests/lib/run-all $(SAN_TESTS)

# Headers of the libraries are the same for all architectures; what is linked is the shim, which needs libc alone.
cross: ## everything compiled for aarch64; libkfs.so for it, tested under qemu-user
	@tests/lib/deps cross
	@$(MAKE_Q) all probes
	@$(MAKE_Q) V=aarch64 CC=$(CROSS_CC) CFLAGS='-idirafter /usr/include -idirafter /usr/include/$(shell cc -print-multiarch 2>/dev/null)' objects shim probes
	@tests/lint/shim-symbols.sh build/aarch64/lib/libkfs.so && tests/lint/shim-exports.sh build/aarch64/lib/libkfs.so
	@KFS_TEST_LOGS=build/aarch64/test-logs tests/lib/run-all $(wildcard tests/cross/*.sh)

missed: ## file calls that reached the kernel past the shim, over the tests with real programs
	@tests/lib/deps test
	@$(MAKE_Q) all probes $(MISSED)
	@tests/missed/run

SECONDS ?= 60
fuzz: ## hostile messages, segments, objects and settings with libFuzzer (clang), SECONDS=60 each
	@tests/lib/deps fuzz
	@$(MAKE_Q) V=fuzz CC=clang WARN=-Wall fuzzers
	@tests/fuzz/run $(SECONDS)

test-ml: ## machine-learning libraries from PyPI, environment and data on a volume
	@tests/lib/deps test
	@$(MAKE_Q) all
	@tests/lib/run-all $(wildcard tests/ml/*.sh)

analyze: ## gcc's static analyser
	@$(MAKE_Q) V=analyze OPT='-O1 -g -fanalyzer' all

test-suites: ## test suites written elsewhere, on a volume and in a plain directory (long; installs them)
	@tests/lib/deps test
	@$(MAKE_Q) all
	@tests/suites/run $(SUITE)

scoreboard: ## run the suites and write docs/scoreboard.md
	@-$(MAKE_Q) test-suites
	@tests/suites/scoreboard

bench: ## figures, as ratios in one run
	@tests/lib/deps bench
	@$(MAKE_Q) all probes benches
	@tests/bench/run

docs: ## docs/compat.md from preload/calls.def
	@tests/lint/compat.sh > docs/compat.md.new && mv docs/compat.md.new docs/compat.md

install: all ## to DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/kfs
	install -m 755 $(BINS) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(B)/lib/libkfs*.so $(DESTDIR)$(PREFIX)/lib/kfs/

clean: ## remove build/
	rm -rf build

-include $(shell find $(B) -path '$(B)/?san' -prune -o -name '*.d' -print 2>/dev/null)
