# Installing: everything lies relative to PREFIX, so that a tree that was installed with DESTDIR can
# be moved as a whole. viv finds its plugins, zoo and catalogue from where it stands.
INSTALL ?= install
DEST    := $(DESTDIR)$(PREFIX)
ZOO     := $(patsubst zoo/models/%/config.json,%,$(wildcard zoo/models/*/config.json))
MANUALS := $(wildcard man/*.1)
HEADERS := $(wildcard abi/vivarium/*.h)
UNITS   := host/daemon/vivd.service host/daemon/vivd.socket

$(BUILD)/vivarium.pc: Makefile mk/install.mk
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)printf '%s\n' \
	  'prefix=$${pcfiledir}/../..' \
	  'includedir=$${prefix}/include' \
	  'libdir=$${prefix}/lib' \
	  'plugindir=$${libdir}/vivarium/plugins' \
	  '' \
	  'Name: vivarium' \
	  'Description: A model zoo behind a stable C ABI' \
	  'Version: $(VERSION)' \
	  'Cflags: -I$${includedir}' \
	  'Libs: -L$${libdir} -lvivarium' \
	  'Libs.private: $(LIBS)' > $@

.PHONY: install uninstall
## install    PREFIX=/usr/local DESTDIR=: library, headers, viv, plugins, zoo, manuals, completions
install: all
	$(INSTALL) -d $(DEST)/bin $(DEST)/include/vivarium $(DEST)/lib/pkgconfig \
	  $(DEST)/lib/vivarium/plugins $(DEST)/share/vivarium/models $(DEST)/share/man/man1 \
	  $(DEST)/share/bash-completion/completions $(DEST)/share/zsh/site-functions \
	  $(DEST)/share/fish/vendor_completions.d $(DEST)/lib/systemd/system
	$(INSTALL) -m 755 $(BUILD)/viv $(BUILD)/vivd $(BUILD)/vivd-nats $(BUILD)/viv-validate $(DEST)/bin
	$(INSTALL) -m 644 $(HEADERS) $(DEST)/include/vivarium
	$(INSTALL) -m 755 $(BUILD)/libvivarium.so $(DEST)/lib/libvivarium.so.$(VERSION)
	ln -sf libvivarium.so.$(VERSION) $(DEST)/lib/libvivarium.so.0
	ln -sf libvivarium.so.0 $(DEST)/lib/libvivarium.so
	$(INSTALL) -m 644 $(BUILD)/libvivarium.a $(DEST)/lib
	$(INSTALL) -m 644 $(BUILD)/vivarium.pc $(DEST)/lib/pkgconfig
	for p in $(PLUGINS); do \
	  $(INSTALL) -m 755 $(BUILD)/plugins/$$p.so $(DEST)/lib/vivarium/plugins && \
	  $(INSTALL) -m 644 $(BUILD)/plugins/$$p.json $(DEST)/lib/vivarium/plugins || exit 1; done
	$(INSTALL) -m 644 zoo/catalog.json $(DEST)/share/vivarium
	for m in $(ZOO); do \
	  $(INSTALL) -d $(DEST)/share/vivarium/models/$$m && \
	  for f in zoo/models/$$m/*; do test ! -f $$f || \
	    $(INSTALL) -m 644 $$f $(DEST)/share/vivarium/models/$$m || exit 1; done || exit 1; done
	$(if $(MANUALS),$(INSTALL) -m 644 $(MANUALS) $(DEST)/share/man/man1)
	$(INSTALL) -m 644 completions/viv.bash $(DEST)/share/bash-completion/completions/viv
	$(INSTALL) -m 644 completions/_viv $(DEST)/share/zsh/site-functions/_viv
	$(INSTALL) -m 644 completions/viv.fish $(DEST)/share/fish/vendor_completions.d/viv.fish

	for u in $(notdir $(UNITS)); do \
	  sed 's|^ExecStart=/usr/bin/|ExecStart=$(PREFIX)/bin/|' host/daemon/$$u > $(DEST)/lib/systemd/system/$$u && \
	  chmod 644 $(DEST)/lib/systemd/system/$$u || exit 1; done

## uninstall  removes what install put under PREFIX, and nothing else
uninstall:
	rm -f $(patsubst %,$(DEST)/lib/systemd/system/%,$(notdir $(UNITS)))
	rm -f $(DEST)/bin/viv $(DEST)/bin/vivd $(DEST)/bin/vivd-nats $(DEST)/bin/viv-validate
	rm -f $(patsubst abi/vivarium/%,$(DEST)/include/vivarium/%,$(HEADERS))
	rm -f $(DEST)/lib/libvivarium.so $(DEST)/lib/libvivarium.so.0 \
	  $(DEST)/lib/libvivarium.so.$(VERSION) $(DEST)/lib/libvivarium.a \
	  $(DEST)/lib/pkgconfig/vivarium.pc
	rm -f $(patsubst %,$(DEST)/lib/vivarium/plugins/%.so,$(PLUGINS)) \
	  $(patsubst %,$(DEST)/lib/vivarium/plugins/%.json,$(PLUGINS))
	rm -f $(patsubst zoo/models/%,$(DEST)/share/vivarium/models/%,$(wildcard zoo/models/*/*))
	rm -f $(DEST)/share/vivarium/catalog.json
	rm -f $(patsubst man/%,$(DEST)/share/man/man1/%,$(MANUALS))
	rm -f $(DEST)/share/bash-completion/completions/viv $(DEST)/share/zsh/site-functions/_viv \
	  $(DEST)/share/fish/vendor_completions.d/viv.fish
	-rmdir $(patsubst %,$(DEST)/share/vivarium/models/%,$(ZOO)) $(DEST)/share/vivarium/models \
	  $(DEST)/share/vivarium $(DEST)/lib/vivarium/plugins $(DEST)/lib/vivarium \
	  $(DEST)/include/vivarium 2>/dev/null || true
