# Plugins that misbehave on purpose, one per folder of tests/plugins, built like real ones.
.PHONY: badplugins
define badplugin_rule
badplugins: $(BUILD)/badplugins/$(1).so $(BUILD)/badplugins/$(1).json
$(BUILD)/badplugins/$(1).so: tests/plugins/$(1)/plugin.c tests/plugins/common.h plugins/export.map \
                             $(ABI_HDR)
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(OPT) -g -fPIC -fvisibility=hidden $(WARN) $(SAN) -Iabi -shared \
	  -Wl,-z,defs -Wl,--version-script=plugins/export.map -o $$@ $$<
$(BUILD)/badplugins/$(1).json: tests/plugins/$(1)/manifest.json
	@mkdir -p $$(@D)
	$$(Q)cp $$< $$@
endef
$(foreach p,$(BAD),$(eval $(call badplugin_rule,$(p))))
unit: badplugins

# The tests find what they run beside the library that they were built with.
FLAGS_test_misbehave := -DVIV_TEST_BUILD='"$(BUILD)"'
FLAGS_test_museum    := $(FLAGS_test_misbehave)
FLAGS_test_validate  := $(FLAGS_test_misbehave)
