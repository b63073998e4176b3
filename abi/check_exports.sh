#!/bin/sh
# The shared library's exported symbols must be exactly the functions that vivarium.h declares.
#   usage: check_exports.sh FOLDER LIBRARY WORK_FOLDER
set -eu
folder=$1 library=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
command -v nm > /dev/null ||
  { echo "abi-check: nm is not installed: apt-get install binutils" >&2; exit 1; }
printf '#include "vivarium/vivarium.h"\n' > "$work/all.h"
"${CC:-cc}" -E -P -DVIV_NO_INCLUDES -I"$folder" "$work/all.h" | awk -f "$here/public.awk" |
  awk '$1 == "function" { print $2 }' | LC_ALL=C sort > "$work/declared.txt"
nm -D --defined-only "$library" | awk '$2 ~ /^[A-Z]$/ && $3 !~ /^_(init|fini)$/ { print $3 }' |
  LC_ALL=C sort -u > "$work/exported.txt"
if ! diff "$work/declared.txt" "$work/exported.txt" > "$work/diff.txt"; then
  sed -n 's/^</  declared, not exported:/p; s/^>/  exported, not declared:/p' "$work/diff.txt" >&2
  echo "abi-check: $library does not export what vivarium.h declares" >&2
  exit 1
fi
echo "abi-check: exports: ok"
