#!/bin/sh
# The README stays true: its C program compiles against an installed tree and runs, its table is the
# catalogue's.
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make --no-print-directory -s install BUILD="$build" PREFIX="$work/usr" >"$work/install.log" 2>&1 || {
  cat "$work/install.log"
  exit 1
}
sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d' >"$work/prog.c"
PKG_CONFIG_PATH=$work/usr/lib/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
cc -Wall -Werror -o "$work/prog" "$work/prog.c" $(pkg-config --cflags --libs vivarium) -Wl,-rpath,"$work/usr/lib"
answer=$("$work/prog" zoo/models/sambay-reasoner "What is 2 + 3?")
echo "$answer"
case $answer in
"<think>"*"</think>5") ;;
*)
  echo "the README's program answered: $answer"
  exit 1
  ;;
esac
sh zoo/table.sh "$build/viv" --check README.md
