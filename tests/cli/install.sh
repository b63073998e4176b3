#!/bin/sh
# make install and uninstall: an installed tree works from wherever it lies.
. tests/cli/lib.inc

check "make install" make --no-print-directory BUILD="$build" DESTDIR="$tmp/root" PREFIX=/usr install
mv "$tmp/root/usr" "$tmp/moved"
unset VIV_ZOO VIV_PLUGIN_PATH
moved=$tmp/moved/bin/viv
check "viv runs from a moved tree" exits 0 "$moved" version
check "its plugins are found" exits 0 "$moved" plugins
check "llama is one" says "^llama "
check "its catalogue is found" exits 0 "$moved" list
check "its zoo is found" exits 0 "$moved" list --models
check "the reasoner is there" says "^sambay-reasoner .*$tmp/moved"
check "doctor is content" exits 0 "$moved" doctor
units=$tmp/moved/lib/systemd/system
check "the service starts the installed daemon" grep -q '^ExecStart=/usr/bin/vivd$' "$units/vivd.service"
if command -v systemd-analyze >/dev/null; then
  sed "s|^ExecStart=.*|ExecStart=$build/vivd|" "$units/vivd.service" >"$tmp/vivd.service"
  cp "$units/vivd.socket" "$tmp"
  check "systemd understands the units" sh -c \
    "cd '$tmp' && systemd-analyze verify --man=no ./vivd.service ./vivd.socket 2>&1 | { ! grep -i vivd; }"
else
  echo "ok - systemd understands the units # skipped: systemd-analyze is absent"
fi
check "the manual is there" test -s "$tmp/moved/share/man/man1/viv.1"
check "completions are there" test -s "$tmp/moved/share/bash-completion/completions/viv"

cat >"$tmp/user.c" <<'END'
#include <stdio.h>
#include <vivarium/vivarium.h>
int main(void) { return puts(viv_version()) < 0; }
END
PKG_CONFIG_PATH=$tmp/moved/lib/pkgconfig
export PKG_CONFIG_PATH
check "pkg-config knows it" pkg-config --exists vivarium
check "a program builds against it" sh -c \
  "${CC:-gcc} -std=c11 '$tmp/user.c' \$(pkg-config --cflags --libs vivarium) -o '$tmp/user'"
if nm "$build/viv" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - a program runs with it # skipped: sanitized library"
else
  check "a program runs with it" env LD_LIBRARY_PATH="$tmp/moved/lib" "$tmp/user"
fi

mv "$tmp/moved" "$tmp/root/usr"
echo mine >"$tmp/root/usr/lib/vivarium/plugins/mine.so"
check "make uninstall" make --no-print-directory BUILD="$build" DESTDIR="$tmp/root" PREFIX=/usr uninstall
check "leaves what is not ours, and nothing else" sh -c \
  "test \"\$(find '$tmp/root' -type f -o -type l)\" = '$tmp/root/usr/lib/vivarium/plugins/mine.so'"
finish
