# Everyday commands. `make help` prints the lines that begin with ##.
FUZZ_SECONDS ?= 60
GOLDENS      := tests/goldens $(wildcard ../shared/goldens)

.PHONY: precision help demo check asan tsan fuzz bench format compdb clean

## help       this list
help:
	@sed -n 's/^## //p' Makefile mk/*.mk

## demo       let the reasoner solve three problems
demo: all
	@sh tests/demo.sh $(BUILD)

## check      unit, golden, validator, ABI, misbehaviour and command-line tests
check: unit $(patsubst tests/fuzz/%.c,$(BUILD)/obj/tests/fuzz/%.o,$(wildcard tests/fuzz/*.c))
	@sh tests/check.sh $(BUILD)

SANITIZED := all unit
## asan       the unit and golden tests under AddressSanitizer and UndefinedBehaviorSanitizer
asan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan OPT=-O1 \
	  SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	  $(SANITIZED)
	@sh tests/sanitized.sh $(BUILD)-asan asan

## tsan       many threads on one runtime under ThreadSanitizer
tsan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-tsan OPT=-O1 \
	  SAN="-fsanitize=thread -fno-omit-frame-pointer" all $(BUILD)-tsan/bench/stress
	@sh tests/sanitized.sh $(BUILD)-tsan tsan

# Fuzzers are built by clang, the library's sources with them.
FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined \
              -fno-sanitize-recover=undefined -DVIV_VERSION='"$(VERSION)"'
FUZZ_LIB   := host/base host/checkpoint host/text host/media host/template
FUZZERS    := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/fuzz/%: tests/fuzz/%.c $(wildcard $(addsuffix /*.c,$(FUZZ_LIB)))
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang-14 $(FUZZ_FLAGS) $(HOST_INC) -o $@ $< $(wildcard $(addsuffix /*.c,$(FUZZ_LIB))) $(LIBS)
## fuzz       every fuzzer for FUZZ_SECONDS (60) on its kept corpus
fuzz: $(addprefix $(BUILD)/fuzz/,$(FUZZERS))
	@sh tests/fuzz.sh $(BUILD) $(FUZZ_SECONDS)

## bench      kernels against the machine's limits, the host's overhead, tokens per second
bench: all badplugins $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_*.c))
	@for b in $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_*.c)); do \
	  echo "== $$b"; VIV_TEST_BUILD=$(BUILD) $$b || exit 1; done
	@$(BUILD)/viv bench tests/models/stories260K
	@$(BUILD)/viv bench zoo/models/sambay-reasoner

## precision  the tables of docs/precision.md: what fewer bits cost
precision: all
	@sh tests/precision.sh $(BUILD)

## format     clang-format every C file
format:
	clang-format-14 -i $(shell git ls-files 'host/*.[ch]' 'plugins/*.[ch]' 'tests/*.[ch]' | grep -v unicode_tables)

## compdb     compile_commands.json for editors
compdb:
	@sh tests/compdb.sh > compile_commands.json

## clean      remove what was built
clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan

# The runner of single-operation goldens also knows the plugins' helpers.
OPS_OBJ := $(call obj,$(wildcard tests/golden_ops/*.c))
$(OPS_OBJ): HOST_INC += -Iplugins
$(BUILD)/tests/golden_ops: $(OPS_OBJ) $(BUILD)/libvivnn.a $(BUILD)/libvivarium.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LIBS)
unit: $(BUILD)/tests/golden_ops
