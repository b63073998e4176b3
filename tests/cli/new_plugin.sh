#!/bin/sh
# A plugin from nothing, with what is installed and nothing else: install into an empty prefix, write
# the template, build it with pkg-config, validate it, run it.
#   usage: new_plugin.sh BUILD
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

fail() {
  echo "new_plugin.sh: $1" >&2
  [ ! -f "$log" ] || tail -30 "$log" >&2
  exit 1
}

make -C "$root" --no-print-directory BUILD="$build" PREFIX="$work/prefix" install > "$log" 2>&1 ||
  fail "make install failed"
pc=$(find "$work/prefix" -name vivarium.pc | head -1)
[ -n "$pc" ] || fail "make install wrote no vivarium.pc"
PKG_CONFIG_PATH=$(dirname "$pc")
PATH=$work/prefix/bin:$PATH
VIV_PLUGIN_PATH= XDG_CACHE_HOME=$work/cache
export PKG_CONFIG_PATH PATH XDG_CACHE_HOME
unset VIV_PLUGIN_PATH
for tool in viv viv-validate; do
  [ "$(command -v $tool)" = "$work/prefix/bin/$tool" ] || fail "$tool was not installed"
done
case $(pkg-config --cflags vivarium) in
  *"$root"*) fail "the installed pkg-config file points into the source tree" ;;
esac

cd "$work"
for name in "" A 1a a_b ../up "a b" -x "$(printf '%64s' '' | tr ' ' a)"; do
  if viv new-plugin "$name" > "$log" 2>&1; then fail "the name \"$name\" was taken"; fi
done
viv new-plugin my-model > "$log" 2>&1 || fail "viv new-plugin failed"
if viv new-plugin my-model > "$log" 2>&1; then fail "existing files were overwritten"; fi
make -C my-model > "$log" 2>&1 || fail "the template does not build"
if grep -n 'warning' "$log"; then fail "the template builds with warnings"; fi
make -C my-model model > "$log" 2>&1 || fail "the tiny model can't be made"
viv-validate --model my-model/model my-model/my-model.so > "$log" 2>&1 ||
  fail "the template does not pass the validator"
make -s -C my-model run > "$log" 2>&1 || fail "the template does not run"
grep -q '0.5 1.5 1 1.5' "$log" || fail "the template computes something else than x + 0.5"

viv new-plugin other --dir "$work/elsewhere" > "$log" 2>&1 || fail "--dir failed"
make -C "$work/elsewhere" check > "$log" 2>&1 || fail "make check in --dir failed"
echo "new-plugin: install, template, build, validate, run: ok"
