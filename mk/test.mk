# Everyday commands. `make help` prints the lines that begin with ##.
FUZZ_SECONDS ?= 60
GOLDENS      := tests/goldens $(wildcard ../shared/goldens)

.PHONY: precision help demo check asan tsan fuzz bench format compdb clean

## help       this list
help:
	@sed -n 's/^## //p' Makefile mk/*.mk

## demo       let the reasoner solve three problems, draw the poses in a picture
demo: all
	@sh tests/demo.sh $(BUILD)

## check      unit, golden, validator, ABI, misbehaviour and command-line tests
check: unit $(patsubst tests/fuzz/%.c,$(BUILD)/obj/tests/fuzz/%.o,$(wildcard tests/fuzz/*.c))
	@sh tests/check.sh $(BUILD)

.PHONY: check-cpu
## check-cpu  the whole of check as on lesser processors: AVX-512 without VNNI, AVX2, portable code
check-cpu: unit
	@for set in avx512 avx2 portable; do echo "check-cpu: $$set"; \
	  VIV_CPU=$$set sh tests/check.sh $(BUILD) || exit 1; done

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
FUZZ_LIB   := host/base host/checkpoint host/text host/media host/template host/grammar host/wire
FUZZERS    := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/fuzz/%: tests/fuzz/%.c $(wildcard $(addsuffix /*.c,$(FUZZ_LIB)))
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang-14 $(FUZZ_FLAGS) $(HOST_INC) -o $@ $< $(wildcard $(addsuffix /*.c,$(FUZZ_LIB))) \
	  $(FUZZ_MORE) $(LIBS)
# The front ends are the plugins'; the kernels that they call are linked as they are.
$(BUILD)/fuzz/fuzz_features: $(BUILD)/libvivarium.a
$(BUILD)/fuzz/fuzz_features: FUZZ_MORE := $(addprefix plugins/nn/,audio.c kaldi.c resample.c fail.c) \
  $(BUILD)/libvivarium.a
$(BUILD)/fuzz/fuzz_features $(BUILD)/obj/tests/fuzz/fuzz_features.o: HOST_INC += -Iplugins
# Only the reading of sessions, of all the tasks.
$(BUILD)/fuzz/fuzz_session: FUZZ_MORE := host/tasks/session_file.c
## fuzz       every fuzzer for FUZZ_SECONDS (60) on its kept corpus; FUZZ_RUNS=N for N reproducible runs
fuzz: $(addprefix $(BUILD)/fuzz/,$(FUZZERS))
	@sh tests/fuzz.sh $(BUILD) $(FUZZ_SECONDS) $(FUZZ_RUNS)

BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/bench_*.c))
## bench      the goals of speed in one table: the machine's limits, then ours and other programs in turns
bench: all badplugins $(BENCHES)
	@sh tests/bench/peers/setup.sh $(BUILD)/peers encoders
	@python3 tests/bench/goals.py $(BUILD) $(if $(ROUNDS),--rounds $(ROUNDS))

# The peers are built or fetched into BUILD/peers by the first run; JSON lies in BUILD/bench.
.PHONY: bench-parts bench-peers bench-context
## bench-parts  kernels, operations, the daemon, grammars and the zoo's models, each alone
bench-parts: all badplugins $(BENCHES)
	@for t in 1 2; do $(BUILD)/bench/bench_limits $$t; done
	@for b in $(filter-out %/bench_limits,$(BENCHES)); do \
	  echo "== $$b"; VIV_TEST_BUILD=$(BUILD) $$b || exit 1; done
	@sh tests/bench/languages.sh $(BUILD)
	@$(BUILD)/viv bench tests/models/stories260K
	@$(BUILD)/viv bench zoo/models/sambay-reasoner
## bench-peers  detectors, vision networks, tokenizers and COCO's evaluation beside other programs
bench-peers: all $(BENCHES)
	@sh tests/bench/peers/setup.sh $(BUILD)/peers encoders
	@$(BUILD)/peers/python/bin/python tests/bench/peers/detectors.py $(BUILD)/viv \
	  $(BUILD)/peers/detectors --json $(BUILD)/bench/detectors.json
	@$(BUILD)/peers/python/bin/python tests/bench/peers/vision.py $(BUILD)/viv \
	  $(BUILD)/peers/vision --json $(BUILD)/bench/vision.json
	@$(BUILD)/peers/python/bin/python tests/bench/peers/sounds.py $(BUILD)/viv \
	  $(BUILD)/peers/sounds --json $(BUILD)/bench/sounds.json
	@$(BUILD)/peers/python/bin/python tests/bench/peers/coco.py $(BUILD)/viv $(BUILD)/peers/coco
	@$(BUILD)/peers/python/bin/python tests/bench/peers/text.py $(BUILD) \
	  $(BUILD)/peers/tokenizers --json $(BUILD)/bench/tokenizers.json
## bench-context  SambaY beside a Llama of the same size at 2k, 8k and 32k tokens of context
bench-context: all
	@python3 tests/bench/context.py $(BUILD)

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
