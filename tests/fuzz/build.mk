# SPDX-License-Identifier: Apache-2.0
#
# Builds the harnesses; run by tests/fuzz/run, in the project's root.
#
#   OUT=build/fuzz      where
#   CLANG=clang-14      with what
#   COVERAGE=FLAGS      for source-based coverage instead of libFuzzer's
#
# The library's sources are compiled once more here, with coverage, ASan, UBSan, and hooks.h forced into them.

OUT := build/fuzz
CLANG := clang
SANITIZE := address,undefined
FLAGS := -std=c11 -D_GNU_SOURCE -g -O1 -Wall -Wextra -pthread -fno-omit-frame-pointer \
	-Ilibp2plink/include -Ilibp2plink/src -Itests/fuzz
ifdef COVERAGE
FLAGS += $(COVERAGE)
INSTRUMENT :=
LINK := $(COVERAGE) -fsanitize=fuzzer
else
INSTRUMENT := -fsanitize=fuzzer-no-link,$(SANITIZE) -fno-sanitize-recover=undefined
LINK := -fsanitize=fuzzer,$(SANITIZE)
endif

LIB_SRC := $(sort $(wildcard libp2plink/src/*.c))
LIB_OBJ := $(LIB_SRC:libp2plink/src/%.c=$(OUT)/lib/%.o)
HARNESSES := $(basename $(notdir $(sort $(wildcard tests/fuzz/fuzz_*.c))))
COMMON_OBJ := $(patsubst tests/fuzz/%.c,$(OUT)/obj/%.o,$(filter-out $(wildcard tests/fuzz/fuzz_*.c),\
	$(sort $(wildcard tests/fuzz/*.c))))

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

all: $(HARNESSES:%=$(OUT)/%)

$(OUT)/lib/%.o: libp2plink/src/%.c tests/fuzz/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CLANG) $(FLAGS) $(INSTRUMENT) -include tests/fuzz/hooks.h -MMD -MP -c -o $@ $<

$(OUT)/obj/%.o: tests/fuzz/%.c tests/fuzz/build.mk
	@mkdir -p $(@D); echo "  CC      $@"
	@$(CLANG) $(FLAGS) $(INSTRUMENT) -MMD -MP -c -o $@ $<

$(OUT)/fuzz_%: $(OUT)/obj/fuzz_%.o $(COMMON_OBJ) $(LIB_OBJ)
	@echo "  LD      $@"
	@$(CLANG) -pthread $(LINK) -o $@ $^ -lurcu-bp

-include $(wildcard $(OUT)/*/*.d)
