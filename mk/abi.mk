# The ABI's guards. `make abi-check` runs all of them; abi-layout and abi-freeze write files that are
# committed, so they are run on purpose.
ABI_HDR  := $(filter-out abi/vivarium/layout.h,$(sort $(wildcard abi/vivarium/*.h)))
ABI_WORK := $(BUILD)/abi

## abi-check  the headers in every language, their layout, the frozen baseline, the museum
## abi-freeze writes the baseline anew, on purpose
.PHONY: abi-check abi-headers abi-layout abi-layout-check abi-baseline abi-freeze abi-exports
abi-check: abi-layout-check abi-headers abi-baseline abi-exports museum-build

abi-headers: $(ABI_HDR)
	@sh abi/check_headers.sh abi $(ABI_WORK)/headers
abi-layout: $(ABI_HDR)
	@mkdir -p $(ABI_WORK)
	@sh abi/gen_layout.sh abi $(ABI_WORK)/layout > $(ABI_WORK)-layout.tmp
	@mv $(ABI_WORK)-layout.tmp abi/vivarium/layout.h
	@echo "abi-layout: abi/vivarium/layout.h written"
abi-layout-check: $(call obj,tests/abi/layout.c)
	@mkdir -p $(ABI_WORK)
	@sh abi/gen_layout.sh abi $(ABI_WORK)/layout > $(ABI_WORK)/layout.h
	@diff -u abi/vivarium/layout.h $(ABI_WORK)/layout.h || \
	  { echo "abi-check: layout.h is stale: run make abi-layout" >&2; exit 1; }
	@echo "abi-check: layout: ok"
abi-baseline: $(ABI_HDR)
	@sh abi/check_baseline.sh abi $(ABI_WORK)/baseline
	@sh tests/abi/broken.sh $(ABI_WORK)/broken
# On purpose, and with a line in CHANGELOG.md: the draft in the museum moves along.
abi-freeze:
	@sh abi/check_baseline.sh abi $(ABI_WORK)/baseline freeze
	@test ! -d abi/museum/1.0-draft || cp $(ABI_HDR) abi/museum/1.0-draft/vivarium/
	@$(MAKE) --no-print-directory abi-layout
# The library exports what vivarium.h declares: nothing is missing, nothing internal leaks out.
abi-exports: $(BUILD)/libvivarium.so
	@sh abi/check_exports.sh abi $(BUILD)/libvivarium.so $(ABI_WORK)/exports

# libvivarium is never built on a compiler whose layout differs.
$(BUILD)/libvivarium.so: | $(call obj,tests/abi/layout.c)

# ---- the museum: sources of plugins and headers as each release of the ABI had them ----
MUSEUM := $(patsubst abi/museum/%/manifest.json,%,$(wildcard abi/museum/*/*/manifest.json))
.PHONY: museum-build
define museum_rule
museum-build: $(BUILD)/museum/$(1).so $(BUILD)/museum/$(1).json
$(BUILD)/museum/$(1).so: abi/museum/$(1)/plugin.c $(wildcard abi/museum/$(dir $(1))vivarium/*.h)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$(CC) -std=c11 $(OPT) -g -fPIC -fvisibility=hidden $(WARN) $(SAN) -Iabi/museum/$(dir $(1)) \
	  -shared -Wl,-z,defs -Wl,--version-script=plugins/export.map -o $$@ $$<
$(BUILD)/museum/$(1).json: abi/museum/$(1)/manifest.json
	@mkdir -p $$(@D)
	$$(Q)cp $$< $$@
endef
$(foreach p,$(MUSEUM),$(eval $(call museum_rule,$(p))))
unit: museum-build
