#!/bin/sh
# Parses every header of FOLDER/vivarium, alone and together, with each compiler and language that
# the ABI promises: C11 and C17 (gcc, clang), C++17 (g++, clang++), LuaJIT's ffi.cdef, whose idea of
# the structs' sizes must equal the C compiler's. No struct may hold padding that it does not name.
#   usage: check_headers.sh FOLDER WORK_FOLDER
set -eu
folder=$1 work=$2
here=$(dirname "$0")

# A check that is skipped because its tool is absent is a check that nobody notices is gone.
need() { # need PACKAGE TOOL...: sets $tool to the first one that exists
  package=$1
  shift
  for tool; do
    if command -v "$tool" > /dev/null; then return; fi
  done
  echo "abi-check: $1 is not installed: apt-get install $package" >&2
  exit 1
}
need gcc gcc; gcc=$tool
need g++ g++; gxx=$tool
need clang clang clang-14; clang=$tool
need clang clang++ clang++-14; clangxx=$tool
need luajit luajit
mkdir -p "$work"

strict="-pedantic -Wall -Wextra -Wshadow -Werror -fsyntax-only"
headers=$(cd "$folder" && ls vivarium/*.h)
: > "$work/together.c"
for h in $headers; do
  name=$(basename "$h" .h)
  # Twice, so that the include guard is tested too.
  printf '#include "%s"\n#include "%s"\nextern int only_%s;\n' "$h" "$h" "$name" > "$work/alone_$name.c"
  printf '#include "%s"\n' "$h" >> "$work/together.c"
done
echo 'extern int together;' >> "$work/together.c"
for source in "$work"/alone_*.c "$work/together.c"; do
  for std in c11 c17; do
    "$gcc" -std=$std $strict -I"$folder" "$source"
    "$clang" -std=$std $strict -I"$folder" "$source"
  done
  "$gxx" -x c++ -std=c++17 $strict -I"$folder" "$source"
  "$clangxx" -x c++ -std=c++17 $strict -I"$folder" "$source"
done
# Every padding byte has a name.
"$gcc" -std=c11 -Wpadded -fsyntax-only -I"$folder" "$work/together.c" 2> "$work/padded.txt"
if grep -q 'warning: padding' "$work/padded.txt"; then
  cat "$work/padded.txt" >&2
  echo "abi-check: a struct has padding without a name" >&2
  exit 1
fi

# LuaJIT, and the sizes of all structs as C has them.
for h in $headers; do [ "$h" = vivarium/layout.h ] || echo "#include \"$h\""; done > "$work/all.h"
"$gcc" -E -P -DVIV_NO_INCLUDES -I"$folder" "$work/all.h" > "$work/cdef.txt"
awk -f "$here/public.awk" "$work/cdef.txt" > "$work/public.txt"
{
  printf '#include <stdio.h>\n#include "all.h"\nint main(void) {\n'
  awk '$1 == "struct" { printf "  printf(\"%s %%zu\\n\", sizeof(%s));\n", $2, $2 }' "$work/public.txt"
  printf '  return 0;\n}\n'
} > "$work/sizes.c"
"$gcc" -std=c11 -I"$folder" -I"$work" -o "$work/sizes" "$work/sizes.c"
"$work/sizes" > "$work/sizes.txt"
cat > "$work/cdef.lua" <<'END'
local ffi = require("ffi")
local cdef, sizes = ...
ffi.cdef(assert(io.open(cdef)):read("*a"))
local n = 0
for name, size in assert(io.open(sizes)):read("*a"):gmatch("(%S+) (%d+)\n") do
  local here = ffi.sizeof(name)
  assert(here == tonumber(size), ("sizeof %s: %d in LuaJIT, %s in C"):format(name, here, size))
  n = n + 1
end
assert(n > 20, "the list of structs is too short")
END
luajit "$work/cdef.lua" "$work/cdef.txt" "$work/sizes.txt"
echo "abi-check: headers: C11, C17, C++17 (gcc, clang), LuaJIT: ok"
