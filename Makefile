# Vivarium. `make help` lists the everyday commands.
BUILD   ?= build
PREFIX  ?= /usr/local
VERSION := 0.1.0
CC      ?= gcc
OPT     ?= -O2
SAN     ?=
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
say     = $(if $(filter 1,$(V)),,@printf '%-4s %s\n' '$(1)' '$(2)')

PKGS    := libuv libcjson libmd libjpeg libpng libwebp libwebpdemux libutf8proc libpcre2-8 zlib
WARN    := -Wall -Wextra -Wshadow -Wpointer-arith -Wcast-qual -Wstrict-prototypes \
           -Wmissing-prototypes -Wvla -Werror
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE $(OPT) -g -fPIC -fvisibility=hidden -fno-math-errno \
             -ffp-contract=off $(WARN) $(SAN) -MMD -MP -DVIV_VERSION='"$(VERSION)"' \
             -DVIV_PREFIX='"$(PREFIX)"'
# cairo is opened at run time (host/media/canvas.c): only its header is needed here.
HOST_INC = -Iabi -Ihost $(shell pkg-config --cflags $(PKGS) cairo)
LIBS     = $(shell pkg-config --libs $(PKGS)) -ldl -lpthread -lm

# ---- sources: a file in one of these folders is built, no list to keep ----
LIB_SRC   := $(wildcard host/base/*.c host/grammar/*.c host/checkpoint/*.c host/compute/*.c host/text/*.c host/template/*.c \
             host/core/*.c host/tasks/*.c host/media/*.c host/wire/*.c host/client/*.c)
CLI_SRC   := $(wildcard host/cli/*.c)
VALID_SRC := $(wildcard host/validate/*.c)
DAEMON_SRC := $(wildcard host/daemon/*.c)
NATS_SRC  := $(wildcard host/nats/*.c)
NN_SRC    := $(wildcard plugins/nn/*.c)
PLUGINS   := $(patsubst plugins/%/manifest.json,%,$(wildcard plugins/*/manifest.json))
UNIT_SRC  := $(wildcard tests/unit/*.c)
BENCH_SRC := $(wildcard tests/bench/*.c)
BAD       := $(patsubst tests/plugins/%/manifest.json,%,$(wildcard tests/plugins/*/manifest.json))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIB_OBJ := $(call obj,$(LIB_SRC))

.PHONY: all
all: $(BUILD)/libvivarium.so $(BUILD)/viv $(BUILD)/vivd $(BUILD)/vivd-nats $(BUILD)/viv-validate plugins $(BUILD)/vivarium.pc

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) $(HOST_INC) $(FLAGS_$(notdir $*)) -c $< -o $@

# Kernels are compiled once per instruction set; kernels_portable.c is the reference.
FLAGS_kernels_avx2   := -O3 -mavx2 -mfma -mf16c -ffp-contract=fast
FLAGS_kernels_avx512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd -mfma -mf16c \
                        -ffp-contract=fast
FLAGS_kernels_portable := -O3
FLAGS_kernels_portable_ops := -O3
FLAGS_kernels_quant_portable := -O3
FLAGS_kernels_quant_avx2 := $(FLAGS_kernels_avx2)
FLAGS_kernels_quant_avx512 := $(FLAGS_kernels_avx512)
FLAGS_kernels_quant_avx512vnni := $(FLAGS_kernels_avx512) -mavx512vnni

$(BUILD)/libvivarium.a: $(LIB_OBJ)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^
$(BUILD)/libvivarium.so: $(LIB_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libvivarium.so.0 -Wl,-z,defs $(SAN) -o $@ $^ $(LIBS)
	$(Q)ln -sf libvivarium.so $(BUILD)/libvivarium.so.0
$(BUILD)/viv: $(call obj,$(CLI_SRC)) $(BUILD)/libvivarium.a
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -rdynamic -o $@ $^ $(LIBS) $(shell pkg-config --libs libedit)
$(BUILD)/viv-validate: $(call obj,$(VALID_SRC)) $(BUILD)/libvivarium.a
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LIBS)

$(BUILD)/vivd: $(call obj,$(DAEMON_SRC)) $(BUILD)/libvivarium.a
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -rdynamic -o $@ $^ $(LIBS) $(shell pkg-config --libs libseccomp)

$(BUILD)/vivd-nats: $(call obj,$(NATS_SRC)) $(BUILD)/libvivarium.a
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LIBS) $(shell pkg-config --libs libnats)

# ---- plugins: only abi/ and plugins/nn, one exported symbol ----
PLUGIN_FLAGS = -std=c11 $(OPT) -g -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off \
               $(WARN) $(SAN) -MMD -MP -Iabi -Iplugins
$(BUILD)/obj/plugins/%.o: plugins/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(PLUGIN_FLAGS) -c $< -o $@
$(BUILD)/libvivnn.a: $(call obj,$(NN_SRC))
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

.PHONY: plugins
# What one plugin needs besides. Plugins link nothing but libc and libm, so that it lies inside: Whisper asks how
# well its text compresses.
LIBS_whisper := -l:libz.a
define plugin_rule
plugins: $(BUILD)/plugins/$(1).so $(BUILD)/plugins/$(1).json
$(BUILD)/plugins/$(1).so: $(call obj,$(wildcard plugins/$(1)/*.c)) $(BUILD)/libvivnn.a plugins/export.map
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$(Q)$(CC) -shared -Wl,-z,defs -Wl,--version-script=plugins/export.map $(SAN) -o $$@ \
	  $$(filter %.o %.a,$$^) $(LIBS_$(1)) -lm
# The manifest is signed with the hash of the object that it stands beside.
$(BUILD)/plugins/$(1).json: plugins/$(1)/manifest.json $(BUILD)/plugins/$(1).so
	$(Q)sed '$$$$ s/}$$$$/,"sha256":"'$$$$(sha256sum $(BUILD)/plugins/$(1).so | cut -c1-64)'"}/' $$< > $$@
endef
$(foreach p,$(PLUGINS),$(eval $(call plugin_rule,$(p))))

# ---- tests ----
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libvivarium.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ -lcriterion $(LIBS)
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/libvivarium.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LIBS)
$(BUILD)/tests/nats_jobs: $(BUILD)/obj/tests/nats/nats_jobs.o
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(shell pkg-config --libs libnats libcjson libmd)
$(BUILD)/tests/faults.so: tests/faults/faults.c
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(OPT) -g -fPIC -shared -o $@ $< -ldl
.PHONY: unit
unit: all $(UNIT_BIN) $(BUILD)/tests/nats_jobs $(BUILD)/tests/faults.so $(BUILD)/bench/bench_daemon_load
.SECONDARY:

-include mk/*.mk
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
