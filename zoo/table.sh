#!/bin/sh
# Writes the catalogue's table into a README, between its two marks:
#   zoo/table.sh build/viv README.md
# Without a file the table goes to standard output. --check fails when the file is out of date.
set -eu

usage() {
  echo "usage: zoo/table.sh VIV [--check] [FILE]" >&2
  exit 2
}

[ $# -ge 1 ] || usage
viv=$1
shift
check=no
if [ "${1:-}" = --check ]; then
  check=yes
  shift
fi
VIV_ZOO=$(cd "$(dirname "$0")" && pwd)
export VIV_ZOO
if [ $# -eq 0 ]; then
  [ $check = no ] || usage
  exec "$viv" list --markdown
fi
file=$1
new=$(mktemp)
table=$(mktemp)
trap 'rm -f "$new" "$table"' EXIT
"$viv" list --markdown > "$table"
if ! grep -q '<!-- catalogue -->' "$file" || ! grep -q '<!-- /catalogue -->' "$file"; then
  echo "zoo/table.sh: $file lacks the lines <!-- catalogue --> and <!-- /catalogue -->" >&2
  exit 1
fi
awk -v table="$table" '
  /<!-- catalogue -->/ { print; while ((getline line < table) > 0) print line; skip = 1 }
  /<!-- \/catalogue -->/ { skip = 0 }
  !skip { print }
' "$file" > "$new"
if [ $check = yes ]; then
  cmp -s "$new" "$file" || { echo "zoo/table.sh: the table in $file is out of date" >&2; exit 1; }
else
  cmp -s "$new" "$file" || cat "$new" > "$file"
fi
