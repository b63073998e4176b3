# Texts that are made from others.
.PHONY: docs docs-check
## docs       the catalogue's table in README.md, from zoo/catalog.json
docs: $(BUILD)/viv
	sh zoo/table.sh $(BUILD)/viv README.md

# Fails when the table is out of date or a manual does not format cleanly.
docs-check: $(BUILD)/viv
	sh zoo/table.sh $(BUILD)/viv --check README.md
	for m in $(wildcard man/*.1); do \
	  out=$$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z $$m 2>&1 >/dev/null); \
	  test -z "$$out" || { echo "$$m: $$out"; exit 1; }; done
