#!/bin/sh
# Writes layout.h for the headers in FOLDER/vivarium to standard output: the size of every public
# struct and the offset of every field, as this compiler lays them out, together with the sizes that
# ABI 1.0 froze. It is run on purpose (make abi-layout) and the result is committed: the assertions
# then hold each later compiler and each later edit to it.
#   usage: gen_layout.sh FOLDER WORK_FOLDER
set -eu
folder=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-cc}
mkdir -p "$work"
# The end of each struct's last field in 1.0: tail padding is never counted.
awk '{ if (!($1 in end)) order[++n] = $1; if ($3 + $4 > end[$1]) end[$1] = $3 + $4 }
     END { for (i = 1; i <= n; i++) print order[i], end[order[i]] }' "$here/baseline/1.0.fields" \
  > "$work/prefix.txt"

headers=$(cd "$folder" && ls vivarium/*.h | grep -v '/layout\.h$')
for h in $headers; do echo "#include \"$h\""; done > "$work/all.h"
"$cc" -E -P -DVIV_NO_INCLUDES -I"$folder" "$work/all.h" | awk -f "$here/public.awk" \
  > "$work/public.txt"

{
  echo '#include <stddef.h>'
  echo '#include <stdio.h>'
  echo '#include "all.h"'
  echo 'int main(void) {'
  awk '
    $1 == "struct" {
      printf "  printf(\"\\nVIV_LAYOUT(sizeof(%s) == %%zu);\\n\", sizeof(%s));\n", $2, $2
    }
    $1 == "field" {
      printf "  printf(\"VIV_LAYOUT(offsetof(%s, %s) == %%zu);\\n\", offsetof(%s, %s));\n", \
             $2, $3, $2, $3
    }' "$work/public.txt"
  echo '  return 0;'
  echo '}'
} > "$work/offsets.c"
"$cc" -std=c11 -I"$folder" -I"$work" -o "$work/offsets" "$work/offsets.c"

cat <<'END'
/* The layout of every public struct. Written by `make abi-layout` from the headers; not edited by
 * hand: sizes that people type are wrong sooner or later, so these are measured, and asserted at
 * each compilation on 64-bit platforms. */
#ifndef VIVARIUM_LAYOUT_H
#define VIVARIUM_LAYOUT_H

#ifndef VIV_NO_INCLUDES
#include <stddef.h>
#endif

END
for h in $headers; do echo "#include \"${h#vivarium/}\""; done
cat <<'END'

/* The version-1 prefix of each struct: the end of the last field that ABI 1.0 had. A receiver
 * refuses a struct that is smaller. These numbers never change within major 1. */
END
awk '{ printf "#define VIV_V1_%s %su\n", $1, $2 }' "$work/prefix.txt"
cat <<'END'

#ifndef VIV_NO_INCLUDES
#if defined(__cplusplus)
#define VIV_LAYOUT(condition) static_assert(condition, "the ABI's layout changed")
#else
#define VIV_LAYOUT(condition) _Static_assert(condition, "the ABI's layout changed")
#endif

#if UINTPTR_MAX == 0xffffffffffffffff
END
"$work/offsets"
echo
awk '{ printf "VIV_LAYOUT(sizeof(%s) >= VIV_V1_%s);\n", $1, $1 }' "$work/prefix.txt"
cat <<'END'
#endif
#endif
#endif
END
