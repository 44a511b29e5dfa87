# KFS: one non-recursive Makefile. `make help` lists the targets.
#
# Variants share the rules: V= (plain), asan, tsan; each has its own tree build/, build/asan, build/tsan.

V       ?=
B       := build$(if $(V),/$(V))
CC      ?= cc
OPT     ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith \
           -Wcast-qual -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough=5 -Wconversion -Wno-sign-conversion $(WERROR)
SAN.asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN.tsan := -fsanitize=thread -fno-omit-frame-pointer
SAN     := $(SAN.$(V))
FAULT   := $(if $(KFS_FAULTS)$(V),-DKFS_FAULTS=1)
CFLAGS_ALL := -std=gnu11 -D_GNU_SOURCE -I. -fvisibility=hidden $(OPT) $(WARN) $(FAULT) $(CFLAGS)
HARDEN  := -fstack-protector-strong $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,defs
# The shim: no fortify (it defines those names), no stack protector (it runs before libc is ready), initial-exec TLS.
SHIMFLAGS := -std=gnu11 -D_GNU_SOURCE -I. -fvisibility=hidden -fPIC $(OPT) $(WARN) -U_FORTIFY_SOURCE -fno-stack-protector \
           -ftls-model=initial-exec -fno-builtin-printf -fno-exceptions $(CFLAGS)

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

obj   = $(patsubst %,$(B)/obj/%.o,$(1))
LIBS_META  := -lsqlite3
LIBS_BLK   := -lxxhash
LIBS_BASE  := -lpthread

BINS  := $(B)/bin/kfsd $(B)/bin/kfs $(B)/bin/kfs-run
UNITS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(unit.src))
PROBES := $(patsubst tests/preload/probes/%.c,$(B)/probes/%,$(probe.src))
BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(bench.src))

.PHONY: all run test check unit lint asan tsan analyze bench clean help deps install docs
.DELETE_ON_ERROR:
all: $(BINS) $(if $(SAN),,$(B)/lib/libkfs.so)  ## build everything (build/bin, build/lib)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

# --- programs -------------------------------------------------------------------------------------------------
$(B)/libkfs-core.a: $(call obj,$(pure.src) $(base.src) $(meta.src) $(blk.src) $(com.src))
	@rm -f $@; $(AR) rcs $@ $^
$(B)/bin/kfsd: $(call obj,$(kfsd.src)) $(B)/libkfs-core.a
$(B)/bin/kfs: $(call obj,$(kfs.src)) $(B)/libkfs-core.a
$(B)/bin/kfs-run: $(call obj,$(run.src)) $(B)/libkfs-core.a
$(BINS):
	@mkdir -p $(@D)
	$(CC) $(SAN) $(LDHARDEN) -o $@ $^ $(LIBS_META) $(LIBS_BLK) $(LIBS_BASE) $(LDFLAGS)

# --- the shim: its own objects, libc alone ---------------------------------------------------------------------
SHIM_OBJS := $(patsubst %,$(B)/shim/%.o,$(shim.src) $(pure.src))
$(B)/lib/libkfs.so: $(SHIM_OBJS) preload/exports.map
	@mkdir -p $(@D)
	$(CC) -shared -o $@ $(SHIM_OBJS) -Wl,-soname,libkfs.so -Wl,-z,defs,-z,relro,-z,now -Wl,--version-script=preload/exports.map $(LDFLAGS)
$(B)/shim/%.o: %
	@mkdir -p $(@D)
	$(CC) $(SHIMFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/%.o: %
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(SAN) $(HARDEN) -MMD -MP -c -o $@ $<

# --- tests ------------------------------------------------------------------------------------------------------
$(B)/tests/%: tests/unit/%.c $(B)/libkfs-core.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(SAN) $(HARDEN) -MMD -MP -o $@ $< $(B)/libkfs-core.a $(LIBS_META) $(LIBS_BLK) $(LIBS_BASE)
$(B)/probes/%: tests/preload/probes/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -D_GNU_SOURCE -I. $(OPT) -Wall -Wextra -MMD -MP -o $@ $< -lpthread -ldl
$(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -D_GNU_SOURCE -I. -O2 -Wall -Wextra -MMD -MP -o $@ $< -lpthread

units: $(UNITS)
probes: $(PROBES)
benches: $(BENCHES)
unit: $(UNITS) ## unit tests
	@tests/lib/run-units $(UNITS)

clean: ## remove build/
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
