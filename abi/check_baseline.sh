#!/bin/sh
# Compares the headers of FOLDER/vivarium with the frozen baseline. A change that the ABI forbids
# fails; what it allows (fields at a struct's end, enumerators, functions, structs) passes.
#   usage: check_baseline.sh FOLDER WORK_FOLDER [freeze]
# With freeze the baseline (beside this script) is written instead. It is three files:
#   1.0.abi     all types and prototypes, as abidw writes them
#   1.0.fields  offset and size of every field
#   1.0.macros  constants and interface ids
set -eu
folder=$1 work=$2 mode=${3:-check}
here=$(cd "$(dirname "$0")" && pwd)
base=$here/baseline
cc=${CC:-cc}
for tool in abidw abidiff; do
  command -v $tool > /dev/null ||
    { echo "abi-check: $tool is not installed: apt-get install abigail-tools" >&2; exit 1; }
done
mkdir -p "$work" "$base"

for h in $(cd "$folder" && ls vivarium/*.h | grep -v '/layout\.h$'); do
  echo "#include \"$h\""
done > "$work/all.h"

# Constants, and where every field lies.
"$cc" -E -dM -I"$folder" "$work/all.h" | sed 's/^#define //' |
  grep '^VIV_[A-Z0-9_]* ' | grep -v '^VIV_API \|^VIV_EXPORT \|_H ' | LC_ALL=C sort > "$work/new.macros"
"$cc" -E -P -DVIV_NO_INCLUDES -I"$folder" "$work/all.h" > "$work/new.h"
awk -f "$here/public.awk" "$work/new.h" > "$work/public.txt"
{
  printf '#include <stddef.h>\n#include <stdio.h>\n#include "all.h"\nint main(void) {\n'
  awk '$1 == "field" {
    printf "  printf(\"%s %s %%zu %%zu\\n\", offsetof(%s, %s), sizeof(((%s *)0)->%s));\n", \
           $2, $3, $2, $3, $2, $3
  }' "$work/public.txt"
  printf '  return 0;\n}\n'
} > "$work/fields.c"
"$cc" -std=c11 -I"$folder" -I"$work" -o "$work/fields" "$work/fields.c"
"$work/fields" > "$work/new.fields"
if [ "$mode" = freeze ]; then cp "$work/new.fields" "$base/1.0.fields"; fi

# A library with one exported object per public struct, enum and function, for abidw: types that are
# only reached through void pointers are invisible to it otherwise. Fields appended since 1.0 are
# left out, so every change that abidiff still reports is one that the ABI forbids.
awk -f "$here/old_view.awk" "$base/1.0.fields" "$work/new.h" > "$work/view.h"
{
  echo '#include <stdint.h>'
  echo '#include "view.h"'
  awk '
    $1 == "struct"   { printf "extern %s *abi_struct_%s;\n%s *abi_struct_%s;\n", $2, $2, $2, $2 }
    $1 == "enum"     { printf "extern enum %s *abi_enum_%s;\nenum %s *abi_enum_%s;\n", $2, $2, $2, $2 }
    $1 == "function" { printf "extern __typeof__(&%s) abi_function_%s;\n", $2, $2
                       printf "__typeof__(&%s) abi_function_%s;\n", $2, $2 }' "$work/public.txt"
  echo 'extern viv_plugin_entry_fn abi_function_viv_plugin_entry;'
  echo 'viv_plugin_entry_fn abi_function_viv_plugin_entry;'
} > "$work/vivabi.c"
# From inside the folder, so that no path of this machine enters the debug information.
(cd "$work" && "$cc" -std=gnu11 -g -O0 -fPIC -shared -fdebug-prefix-map="$PWD"=. -I. \
  -o libvivabi.so vivabi.c)
(cd "$work" && abidw --no-comp-dir-path --no-corpus-path --no-show-locs --no-architecture \
  --out-file new.abi libvivabi.so)

if [ "$mode" = freeze ]; then
  for kind in abi macros; do cp "$work/new.$kind" "$base/1.0.$kind"; done
  echo "abi-freeze: abi/baseline/1.0.* written; say why in CHANGELOG.md"
  exit 0
fi

lost() { # lost KIND TEXT: lines of the baseline that are no longer there
  LC_ALL=C sort "$base/1.0.$1" > "$work/old.sorted"
  LC_ALL=C sort "$work/new.$1" > "$work/new.sorted"
  if LC_ALL=C comm -23 "$work/old.sorted" "$work/new.sorted" | grep -v '^VIV_ABI_MINOR ' |
     grep . > "$work/lost.txt"; then
    cat "$work/lost.txt" >&2
    echo "abi-check: $2 of the frozen ABI 1.0 is gone or changed (above: as it was)" >&2
    return 1
  fi
}
bad=0
lost macros "a constant" || bad=1
lost fields "a field's name, offset or size" || bad=1
# Bits of the exit status: 1 error, 2 usage, 4 change, 8 incompatible change.
status=0
abidiff --no-added-syms --no-architecture "$base/1.0.abi" "$work/new.abi" > "$work/diff.txt" 2>&1 ||
  status=$?
if [ $status -ne 0 ]; then
  cat "$work/diff.txt" >&2
  echo "abi-check: the headers break the frozen ABI 1.0 (abidiff status $status)" >&2
  bad=1
fi
[ $bad = 0 ] && echo "abi-check: baseline 1.0: ok"
exit $bad
