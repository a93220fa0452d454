# SPDX-License-Identifier: Apache-2.0
#
# Builds everything under build/.  "make help" says what there is.
#
# Variables, on the command line:
#   SANITIZE=address,undefined   or SANITIZE=thread: builds into build/asan or build/tsan, with these sanitizers
#   PREFIX, DESTDIR              where "install" puts things
#   CC, CFLAGS, LDFLAGS          as usual
#   WERROR=1                     warnings are errors
#   T=pattern                    only the tests whose file name contains it
#   VNF=qemu|process             what the VNFs of the demo are

VERSION := 0.1.0
SOVERSION := 0

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
INSTALL ?= install
ifeq ($(origin CC),default)
CC := gcc
endif
# The system's own, whatever else is first in PATH: it is the one that "make deps" takes care of.
PYTHON ?= /usr/bin/python3
VNF ?= qemu

ROOT := $(CURDIR)

# Variants with sanitizers live apart, so that going back and forth rebuilds nothing.
VARIANT := $(if $(SANITIZE),$(if $(findstring thread,$(SANITIZE)),/tsan,/asan))
BUILD := build$(VARIANT)

SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

.PHONY: help
help: ## print this
	@echo "Targets (as root, on Debian 12):"
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
	    while IFS='|' read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done
	@echo "Variables:"
	@sed -n '/^# Variables/,/^$$/s/^#   \([A-Z].*\)/  \1/p' Makefile

.PHONY: deps all
deps: ## install the Debian packages that the rest needs
	scripts/deps.sh

all: lib vnfs ovs p2plinkd dpdk-driver ## build the library, VNFs, the DPDK driver, the patched OVS, the host agent

#
# Compiler flags.
#

CFLAGS ?= $(if $(SANITIZE),-O1,-O2) -g
# A finding of UBSan ends the program, as those of the others do.
SANITIZE_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -Wall -Wextra $(if $(WERROR),-Werror) -pthread \
	-DP2PLINK_VERSION='"$(VERSION)"' $(SANITIZE_FLAGS) $(CFLAGS)
ALL_LDFLAGS := -pthread $(SANITIZE_FLAGS) $(LDFLAGS)
LIB_CPPFLAGS := -Ilibp2plink/include -Ilibp2plink/src
URCU_LIBS := -lurcu-bp
# liburcu-bp.a does not say by itself that it needs the other.
URCU_STATIC_LIBS := -lurcu-bp -lurcu-common

# A file that changes only when its content does, so that what depends on it is made again just then.
define write-if-changed # TEXT
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' >$@
endef

.PHONY: FORCE
FORCE:

$(BUILD)/flags: FORCE
	$(call write-if-changed,$(CC) $(ALL_CFLAGS) | $(ALL_LDFLAGS))

# Compiles $< into $@, and notes in $(@:.o=.d) which headers that took.
COMPILE = @mkdir -p $(@D); echo "  CC      $@"; $(CC) $(ALL_CFLAGS) -MMD -MP

#
# The library.
#

LIB_SRC := $(sort $(wildcard libp2plink/src/*.c))
LIB_OBJ := $(LIB_SRC:libp2plink/src/%.c=$(BUILD)/obj/lib/%.o)
LIB_HEADERS := $(sort $(wildcard libp2plink/include/p2plink/*.h))
LIB_REAL := $(BUILD)/lib/libp2plink.so.$(VERSION)
LIB_SONAME := libp2plink.so.$(SOVERSION)
LIB_LINKS := $(BUILD)/lib/$(LIB_SONAME) $(BUILD)/lib/libp2plink.so
LIB_STATIC := $(BUILD)/lib/libp2plink.a
ifeq ($(SANITIZE),)
# Nothing undefined; with sanitizers, their symbols come from the program.
LIB_LDFLAGS := -Wl,-z,defs
endif
# For those who link with the library where it was built; the installed one is made by "install".
LIB_PC := $(BUILD)/pkgconfig/libp2plink.pc

.PHONY: lib
lib: $(LIB_REAL) $(LIB_LINKS) $(LIB_STATIC) $(LIB_PC) ## build libp2plink, shared and static

$(BUILD)/obj/lib/%.o: libp2plink/src/%.c $(BUILD)/flags
	$(COMPILE) $(LIB_CPPFLAGS) -fPIC -fvisibility=hidden -c -o $@ $<

$(LIB_REAL): $(LIB_OBJ) libp2plink/libp2plink.map
	@mkdir -p $(@D); echo "  LD      $@"
	@$(CC) -shared -Wl,-soname,$(LIB_SONAME) -Wl,--version-script=libp2plink/libp2plink.map \
	    -Wl,-z,relro -Wl,-z,now $(LIB_LDFLAGS) $(ALL_LDFLAGS) -o $@ $(LIB_OBJ) $(URCU_LIBS)

$(LIB_LINKS): $(LIB_REAL)
	@ln -sf $(<F) $@

# From nothing each time: "ar" would keep the objects of sources that are gone.
$(LIB_STATIC): $(LIB_OBJ)
	@mkdir -p $(@D); echo "  AR      $@"; rm -f $@
	@$(AR) rcs $@ $^

# $(call make-pc,prefix,libdir,includedir)
make-pc = sed -e 's|@PREFIX@|$(1)|' -e 's|@LIBDIR@|$(2)|' -e 's|@INCLUDEDIR@|$(3)|' -e 's|@VERSION@|$(VERSION)|' \
	libp2plink/libp2plink.pc.in

$(LIB_PC): libp2plink/libp2plink.pc.in Makefile
	@mkdir -p $(@D)
	@$(call make-pc,$(ROOT),$(ROOT)/$(BUILD)/lib,$(ROOT)/libp2plink/include) >$@

#
# VNFs: each guest/p2p-NAME.c (or guest/vnf/p2p-NAME.c) is a program; the other sources in guest/vnf are shared by them.
# Programs are linked twice: with the shared library for the host, and statically for the guest image.
#

VNF_MAIN := $(sort $(wildcard guest/p2p[-_]*.c guest/vnf/p2p[-_]*.c))
VNF_SRC := $(sort $(wildcard guest/*.c guest/vnf/*.c))
# "_" in a source's name is "-" in the program's.
vnf-name = $(subst _,-,$(basename $(notdir $(1))))
VNF_NAMES := $(foreach s,$(VNF_MAIN),$(call vnf-name,$(s)))
VNF_PROGRAMS := $(VNF_NAMES:%=$(BUILD)/bin/%)
VNF_LIB := $(BUILD)/obj/libvnf.a
ifeq ($(SANITIZE),)
# There is no static libasan: guests have the plain programs in any case.
VNF_STATIC := $(VNF_NAMES:%=$(BUILD)/guest/%)
endif
# Found beside the program's folder, in the build tree and installed.
RPATH := -Wl,-rpath,'$$ORIGIN/../lib'

.PHONY: vnfs
vnfs: $(VNF_PROGRAMS) $(VNF_STATIC) ## build the sample VNFs, for the host (build/bin) and for guests (build/guest)

$(BUILD)/obj/guest/%.o: guest/%.c $(BUILD)/flags
	$(COMPILE) -Ilibp2plink/include -Iguest -Iguest/vnf -c -o $@ $<

$(VNF_LIB): $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(VNF_MAIN),$(VNF_SRC)))
	@mkdir -p $(@D); rm -f $@
	@$(AR) rcs $@ $^

define vnf-rules # SOURCE NAME
$(BUILD)/bin/$(2): $(1:%.c=$(BUILD)/obj/%.o) $(VNF_LIB) $(LIB_REAL) | $(LIB_LINKS)
	@mkdir -p $$(@D); echo "  LD      $$@"
	@$(CC) $(ALL_LDFLAGS) -o $$@ $(1:%.c=$(BUILD)/obj/%.o) $(VNF_LIB) -L$(BUILD)/lib -lp2plink $$(RPATH) -lm
$(BUILD)/guest/$(2): $(1:%.c=$(BUILD)/obj/%.o) $(VNF_LIB) $(LIB_STATIC)
	@mkdir -p $$(@D); echo "  LD      $$@"
	@$(CC) -static $(ALL_LDFLAGS) -o $$@ $(1:%.c=$(BUILD)/obj/%.o) $(VNF_LIB) $(LIB_STATIC) $(URCU_STATIC_LIBS) -lm
endef
$(foreach s,$(VNF_MAIN),$(eval $(call vnf-rules,$(s),$(call vnf-name,$(s)))))

#
# Open vSwitch.  scripts/build-ovs.sh does the work; a stamp says that it is done.
#

STAMPS := $(BUILD)/stamps
BUILD_OVS = BUILD='$(ROOT)/$(BUILD)' SANITIZE='$(SANITIZE)' CC='$(CC)' PREFIX='$(PREFIX)' scripts/build-ovs.sh

.PHONY: ovs ovs-nodpdk ovs-vanilla
ovs: $(STAMPS)/ovs-dpdk ## build the patched Open vSwitch, with DPDK (build/ovs)
ovs-nodpdk: $(STAMPS)/ovs-nodpdk ## build the patched Open vSwitch, without DPDK (build/ovs-nodpdk)
ovs-vanilla: $(STAMPS)/ovs-vanilla ## build Open vSwitch as Debian has it, with DPDK (build/ovs-vanilla)

# By content: a patch that was only touched, or one that is gone, is seen for what it is.
$(STAMPS)/series: FORCE
	$(call write-if-changed,$(shell cat /dev/null $(sort $(wildcard ovs-patch/*.patch)) | sha256sum))

# OVS is compiled against the library's headers; the library itself it finds when it runs.
$(STAMPS)/ovs-dpdk $(STAMPS)/ovs-nodpdk: $(STAMPS)/ovs-%: $(STAMPS)/series $(LIB_HEADERS) scripts/build-ovs.sh | lib
	@rm -f $@
	@$(BUILD_OVS) $*
	@touch $@

$(STAMPS)/ovs-vanilla: scripts/build-ovs.sh
	@mkdir -p $(@D); rm -f $@
	@$(BUILD_OVS) vanilla
	@touch $@

#
# The DPDK driver.
#

include guest/dpdk/build.mk

#
# The host agent: qemu/p2plinkd.c and qemu/p2plinkctl.c are programs, the other sources in qemu/ are shared by both.
# They use OVS's own library (OVSDB client, JSON, unixctl), so OVS's libtool links them.
#

AGENT_MAIN := $(wildcard qemu/p2plinkd.c qemu/p2plinkctl.c)
AGENT_PROGRAMS := $(AGENT_MAIN:qemu/%.c=$(BUILD)/bin/%)
AGENT_LIB := $(BUILD)/obj/libagent.a
AGENT_LIB_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(filter-out $(AGENT_MAIN),$(wildcard qemu/*.c))))
OVS_SRC := build/ovs-src
OVS_OBJ := $(BUILD)/ovs
# OVS's headers want GNU C, and are not for us to warn about.
OVS_CPPFLAGS := -std=gnu11 -DHAVE_CONFIG_H \
	$(addprefix -isystem ,$(OVS_OBJ) $(OVS_SRC)/include $(OVS_OBJ)/include $(OVS_SRC)/lib $(OVS_OBJ)/lib)
# What configure found that libopenvswitch needs; read when OVS has been built.
OVS_LIBS = $(shell sed -n 's/^LIBS = //p' $(OVS_OBJ)/Makefile)

.PHONY: p2plinkd
p2plinkd: $(AGENT_PROGRAMS) ## build the host agent, p2plinkd, and p2plinkctl

$(BUILD)/obj/qemu/%.o: qemu/%.c $(BUILD)/flags $(STAMPS)/ovs-dpdk
	$(COMPILE) $(OVS_CPPFLAGS) -Ilibp2plink/include -Iqemu -c -o $@ $<

$(AGENT_LIB): $(AGENT_LIB_OBJ)
	@mkdir -p $(@D); rm -f $@
	@$(AR) rcs $@ $^

$(AGENT_PROGRAMS): $(BUILD)/bin/%: $(BUILD)/obj/qemu/%.o $(AGENT_LIB) $(LIB_REAL) | $(LIB_LINKS)
	@mkdir -p $(@D); echo "  LD      $@"
	@$(OVS_OBJ)/libtool --quiet --tag=CC --mode=link $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) \
	    $(AGENT_LIB) $(OVS_OBJ)/lib/libopenvswitch.la $(OVS_LIBS) -L$(BUILD)/lib -lp2plink $(RPATH)

#
# The guest image: kernel and initramfs for the VMs of tests and demo.
#

# The script itself does nothing if nothing has changed.
.PHONY: image
image: $(VNF_STATIC) ## make the guest image (build/image)
ifeq ($(SANITIZE),)
	@qemu/make-image.sh build/image
else
	@$(MAKE) --no-print-directory SANITIZE= image
endif

#
# Tests.  tests/run-tests.py runs programs and scripts that print TAP, and counts.
#

UNIT_MAIN := $(sort $(wildcard tests/unit/test_*.c tests/unit/prop_*.c))
UNIT_PROGRAMS := $(UNIT_MAIN:%.c=$(BUILD)/%)
UNIT_COMMON_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(filter-out $(UNIT_MAIN),$(wildcard tests/unit/*.c))))
# What concerns builds, or other people's programs, is not done again with sanitizers.
E2E_PLAIN_ONLY := $(addprefix tests/e2e/test_,install.sh run_tests.py nodpdk.py fault_versions.py) \
	$(wildcard tests/e2e/test_dpdk_*.py)
E2E_SCRIPTS := $(filter-out $(if $(SANITIZE),$(E2E_PLAIN_ONLY)), \
	$(sort $(wildcard tests/e2e/test_*.py tests/e2e/test_*.sh)))
# The beginnings of what runs for long.
SHORT_RUNS := $(foreach p,stress hostile fuzz model,'tests/$(p)/run --short')
# Tests of restarts fork, and the child has threads of its own.
RUN_TESTS = P2P_BUILD='$(ROOT)/$(BUILD)' TSAN_OPTIONS=die_after_fork=0 $(PYTHON) tests/run-tests.py \
	--logs $(BUILD)/test-logs $(if $(T),--match '$(T)')

# Objects with all of the library in them, its private parts too; the linker takes what a test needs.
$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags
	$(COMPILE) $(LIB_CPPFLAGS) -Iguest -Iguest/vnf -Itests/unit -c -o $@ $<

$(UNIT_PROGRAMS): $(BUILD)/%: $(BUILD)/obj/%.o $(UNIT_COMMON_OBJ) $(LIB_STATIC) $(VNF_LIB)
	@mkdir -p $(@D); echo "  LD      $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(VNF_LIB) $(LIB_STATIC) $(URCU_LIBS) -lcmocka -lm

.PHONY: tests test unit e2e
tests: $(UNIT_PROGRAMS) ## build the unit tests
test: all tests dpdk-examples image $(if $(T),,ovs-nodpdk ovs-vanilla) ## run all tests (T=pattern: some)
	@$(RUN_TESTS) $(UNIT_PROGRAMS) $(E2E_SCRIPTS) $(SHORT_RUNS)
unit: tests ## run the unit tests only; needs no Open vSwitch
	@$(RUN_TESTS) $(UNIT_PROGRAMS)
e2e: all $(if $(SANITIZE),,dpdk-examples) image ## run the end-to-end tests only
	@$(RUN_TESTS) $(E2E_SCRIPTS)

# The unit tests wait more than they compute, so both kinds run at a time.  What fails keeps nothing else from it.
.PHONY: sanitized unit-asan unit-tsan e2e-asan
sanitized: ## run unit and end-to-end tests with ASan and UBSan, and unit tests with TSan
	@$(MAKE) --no-print-directory SANITIZE=address,undefined all tests image
	@$(MAKE) --no-print-directory SANITIZE=thread tests
	@status=0; \
	$(MAKE) --no-print-directory --keep-going -j2 -Otarget unit-asan unit-tsan || status=$$?; \
	$(MAKE) --no-print-directory e2e-asan || status=$$?; \
	exit $$status
unit-asan:
	@echo "unit tests, ASan and UBSan"; $(MAKE) --no-print-directory SANITIZE=address,undefined unit
unit-tsan:
	@echo "unit tests, TSan"; $(MAKE) --no-print-directory SANITIZE=thread unit
e2e-asan:
	@echo "end-to-end tests, ASan and UBSan"
	@P2P_REPETITIONS=$${P2P_REPETITIONS:-100} $(MAKE) --no-print-directory SANITIZE=address,undefined e2e

.PHONY: check-style
check-style: ## check the sources' form, and the series with OVS's checkpatch
	@$(PYTHON) scripts/check-style.py

#
# The demo, and what runs for longer than a test may.  Each is a program of its own; until it is there, the target says
# so.
#

# $(call run-or-tell,PROGRAM,ARGUMENTS)
define run-or-tell
	@if [ ! -x $(1) ]; then echo "make $@: not there yet: $(1) is missing" >&2; exit 1; fi
	P2P_BUILD='$(ROOT)/$(BUILD)' $(1) $(2)
endef

.PHONY: demo stress policy hostile ovs-check bench fuzz model
# One after the other: nothing can be built before everything is installed.
demo: ## install what is needed, build, and show three VNFs being chained (VNF=qemu or process)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all $(if $(filter qemu,$(VNF)),image)
	$(call run-or-tell,scripts/demo.py,--vnf=$(VNF))
stress: $(if $(wildcard tests/stress/run),all) ## flip links under full load for long
	$(call run-or-tell,tests/stress/run)
policy: all ovs-vanilla ## change rules under traffic, thousands of times, and see what passes; vanilla beside it
	P2P_BUILD='$(ROOT)/$(BUILD)' P2P_REPETITIONS=5000 tests/e2e/test_policy_order.py
hostile: all image ## let hostile VNFs and guests do their worst, for minutes
	$(call run-or-tell,tests/hostile/run)
ovs-check: all ovs-vanilla ## run Open vSwitch's own tests in the patched tree, and compare with the vanilla one
	P2P_BUILD='$(ROOT)/$(BUILD)' $(PYTHON) scripts/ovs-check.py
bench: $(if $(wildcard scripts/bench.py),all) ## measure against vanilla Open vSwitch and the peers
	$(call run-or-tell,scripts/bench.py)
fuzz: ## fuzz whatever reads shared memory or a socket
	$(call run-or-tell,tests/fuzz/run)
model: ## check the model of the switchover protocol
	$(call run-or-tell,tests/model/run)

#
# Installation.  Programs find the library by their own place (see RPATH), so a staged tree works where it stands.
#

D = $(DESTDIR)
INSTALLED = $(VNF_NAMES:%=$(BINDIR)/%) $(if $(AGENT_MAIN),$(BINDIR)/p2plinkctl $(SBINDIR)/p2plinkd) \
	$(LIBDIR)/$(notdir $(LIB_REAL)) $(LIBDIR)/$(LIB_SONAME) $(LIBDIR)/libp2plink.so $(LIBDIR)/libp2plink.a \
	$(LIBDIR)/pkgconfig/libp2plink.pc $(LIB_HEADERS:libp2plink/include/%=$(INCLUDEDIR)/%)

.PHONY: install uninstall install-ovs uninstall-ovs
install: lib vnfs p2plinkd ## install library, headers, VNFs and host agent (PREFIX, DESTDIR)
	$(INSTALL) -d $(D)$(BINDIR) $(D)$(SBINDIR) $(D)$(LIBDIR)/pkgconfig $(D)$(INCLUDEDIR)/p2plink
	$(INSTALL) -m 755 $(LIB_REAL) $(D)$(LIBDIR)
	ln -sf $(notdir $(LIB_REAL)) $(D)$(LIBDIR)/$(LIB_SONAME)
	ln -sf $(LIB_SONAME) $(D)$(LIBDIR)/libp2plink.so
	$(INSTALL) -m 644 $(LIB_STATIC) $(D)$(LIBDIR)
	$(call make-pc,$(PREFIX),$(LIBDIR),$(INCLUDEDIR)) >$(D)$(LIBDIR)/pkgconfig/libp2plink.pc
	$(INSTALL) -m 644 $(LIB_HEADERS) $(D)$(INCLUDEDIR)/p2plink
	$(if $(VNF_PROGRAMS),$(INSTALL) -m 755 $(VNF_PROGRAMS) $(D)$(BINDIR))
	$(if $(AGENT_MAIN),$(INSTALL) -m 755 $(BUILD)/bin/p2plinkctl $(D)$(BINDIR))
	$(if $(AGENT_MAIN),$(INSTALL) -m 755 $(BUILD)/bin/p2plinkd $(D)$(SBINDIR))
	$(if $(D),,-ldconfig)
uninstall: ## remove what "install" put there
	rm -f $(addprefix $(D),$(INSTALLED))
	-rmdir --ignore-fail-on-non-empty $(D)$(INCLUDEDIR)/p2plink
	$(if $(D),,-ldconfig)
# Open vSwitch has its data folder compiled in, so that another PREFIX means building it anew.
install-ovs: ovs ## install the patched Open vSwitch (PREFIX, DESTDIR)
	@$(BUILD_OVS) dpdk
	$(MAKE) -C $(OVS_OBJ) install DESTDIR='$(abspath $(D))'
uninstall-ovs: ## remove what "install-ovs" put there
	$(MAKE) -C $(OVS_OBJ) uninstall DESTDIR='$(abspath $(D))'

.PHONY: clean
clean: ## remove build/
	rm -rf build

# Which headers each object was made from.
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
