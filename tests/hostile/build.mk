# SPDX-License-Identifier: Apache-2.0
#
# Builds the hostile VNF, also as a static program for a guest, and the switch with sanitizers that it is let loose on;
# run by tests/hostile/run, in the project's root.

OUT := build/hostile
CC := gcc
FLAGS := -std=c11 -D_GNU_SOURCE -g -Wall -Wextra -pthread -Ilibp2plink/include -Ilibp2plink/src
SANITIZE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LIB_SRC := $(sort $(wildcard libp2plink/src/*.c))

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

all: $(OUT)/hostile $(OUT)/guest/p2p-hostile $(OUT)/plant

$(OUT)/plain/%.o: libp2plink/src/%.c tests/hostile/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CC) $(FLAGS) -O2 -MMD -MP -c -o $@ $<

$(OUT)/asan/%.o: libp2plink/src/%.c tests/hostile/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CC) $(FLAGS) $(SANITIZE) -include tests/fuzz/hooks.h -MMD -MP -c -o $@ $<

$(OUT)/hostile: tests/hostile/hostile.c $(LIB_SRC:libp2plink/src/%.c=$(OUT)/plain/%.o)
	@echo "  LD      $@"
	@$(CC) $(FLAGS) -O2 -MMD -MP -MF $(OUT)/plain/main.d -o $@ $(filter %.c %.o,$^) -lurcu-bp

$(OUT)/guest/p2p-hostile: tests/hostile/hostile.c $(LIB_SRC:libp2plink/src/%.c=$(OUT)/plain/%.o)
	@mkdir -p $(@D); echo "  LD      $@"
	@$(CC) -static $(FLAGS) -O2 -MMD -MP -MF $(OUT)/plain/guest.d -o $@ $(filter %.c %.o,$^) -lurcu-bp -lurcu-common

$(OUT)/obj/%.o: tests/hostile/%.c tests/hostile/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CC) $(FLAGS) $(SANITIZE) -Itests/fuzz -MMD -MP -c -o $@ $<

$(OUT)/obj/%.o: tests/fuzz/%.c tests/hostile/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CC) $(FLAGS) $(SANITIZE) -Itests/fuzz -MMD -MP -c -o $@ $<

$(OUT)/plant: $(OUT)/obj/plant.o $(OUT)/obj/honest.o $(OUT)/obj/fuzz.o $(LIB_SRC:libp2plink/src/%.c=$(OUT)/asan/%.o)
	@echo "  LD      $@"
	@$(CC) $(SANITIZE) -pthread -o $@ $^ -lurcu-bp

-include $(wildcard $(OUT)/*/*.d)
