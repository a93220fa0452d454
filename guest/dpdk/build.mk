# SPDX-License-Identifier: Apache-2.0
#
# The DPDK driver, included by the Makefile.  scripts/build-dpdk.sh gets the headers that Debian's libdpdk-dev has not,
# from the source package of the same version, and builds the examples.
#
# The driver has the library linked into it, and exports nothing.

DPDK_DRIVER := $(BUILD)/lib/dpdk/librte_net_p2plink.so
DPDK_SRC := $(sort $(wildcard guest/dpdk/*.c))
DPDK_OBJ := $(DPDK_SRC:%.c=$(BUILD)/obj/%.o)
# Sources and examples do not depend on the sanitizers.
DPDK_DIR := build/dpdk
# Asked only when the driver is built: libdpdk-dev may not be there yet.
DPDK_CFLAGS = $(subst -I/,-isystem /,$(shell pkg-config --cflags libdpdk))
DPDK_CPPFLAGS = -std=gnu11 -isystem $(DPDK_DIR)/include -DALLOW_EXPERIMENTAL_API -DALLOW_INTERNAL_API $(DPDK_CFLAGS) \
	$(LIB_CPPFLAGS) -Iguest/dpdk
DPDK_LIBS := $(addprefix -lrte_,ethdev net pci bus_vdev mempool mbuf ring kvargs eal)

.PHONY: dpdk-driver dpdk-examples
dpdk-driver: $(DPDK_DRIVER) ## build the DPDK driver (build/lib/dpdk)
dpdk-examples: $(DPDK_DIR)/examples/stamp ## build DPDK's l2fwd and l3fwd, to be run on the driver (build/dpdk/examples)

$(DPDK_DIR)/src.stamp: scripts/build-dpdk.sh
	@scripts/build-dpdk.sh source
	@touch $@

$(DPDK_DIR)/examples/stamp: $(DPDK_DIR)/src.stamp
	@CC='$(CC)' scripts/build-dpdk.sh examples
	@touch $@

$(BUILD)/obj/guest/dpdk/%.o: guest/dpdk/%.c $(BUILD)/flags $(DPDK_DIR)/src.stamp
	$(COMPILE) $(DPDK_CPPFLAGS) -fPIC -fvisibility=hidden -c -o $@ $<

$(DPDK_DRIVER): $(DPDK_OBJ) $(LIB_STATIC) guest/dpdk/driver.map
	@mkdir -p $(@D); echo "  LD      $@"
	@$(CC) -shared -Wl,--version-script=guest/dpdk/driver.map -Wl,-z,relro -Wl,-z,now $(LIB_LDFLAGS) $(ALL_LDFLAGS) \
	    -o $@ $(DPDK_OBJ) $(LIB_STATIC) $(DPDK_LIBS) $(URCU_LIBS)
