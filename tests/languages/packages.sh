#!/bin/sh
# Builds the package of each language as its ecosystem does, without network, and uses what came out of it, far
# from the sources: packages.sh BUILD MODEL PYTHON. PYTHON has setuptools, wheel and mypy.
set -eu
build=$(cd "$1" && pwd) model=$(cd "$2" && pwd) python=$3
here=$PWD
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() {
  echo "packages: $*" >&2
  [ ! -s "$tmp/log" ] || tail -20 "$tmp/log" >&2
  exit 1
}
for tool in cargo go luarocks luajit; do
  command -v $tool >/dev/null || fail "$tool is missing: ./setup check installs it"
done
export VIV_LIBRARY="$build/libvivarium.so" VIV_PLUGIN_PATH="$build/plugins" VIVARIUM_LIB_DIR="$build"
unset PYTHONPATH LUA_PATH LD_LIBRARY_PATH || true
says() {
  "$@" "$model" "Once upon a time" >"$tmp/said" 2>"$tmp/log" && grep -q "there was" "$tmp/said" || fail "$* fails"
}

# Python: the sdist from the sources, the wheel from the sdist, both through the hooks that build and pip call.
cp -r abi/python "$tmp/python"
hook() {
  (cd "$1" && "$python" -c "import setuptools.build_meta as b, sys; b.$2(sys.argv[1])" "$tmp") >"$tmp/log" 2>&1 ||
    fail "$2 fails"
}
hook "$tmp/python" build_sdist
(cd "$tmp" && tar xzf vivarium-*.tar.gz)
hook "$tmp/vivarium-0.1.0" build_wheel
mkdir "$tmp/site"
"$python" -m zipfile -e "$tmp"/vivarium-0.1.0-py3-none-any.whl "$tmp/site"
cd "$tmp"
PYTHONPATH=$tmp/site says "$python" "$tmp/vivarium-0.1.0/examples/generate.py"
# The types of the package and of what uses it.
printf 'import vivarium\nn: int = vivarium.open().load("x").tokenize("a")\n' >"$tmp/wrong.py"
MYPYPATH=$tmp/site "$python" -m mypy --strict --cache-dir "$tmp/mypy" "$tmp/site/vivarium" \
  "$here"/abi/python/examples/*.py >"$tmp/log" || fail "types do not hold"
! MYPYPATH=$tmp/site "$python" -m mypy --strict --cache-dir "$tmp/mypy" "$tmp/wrong.py" >"$tmp/log" ||
  fail "a wrong type is not found"

# Rust: the crates as cargo would upload them; the second is built against the first, with its doc tests.
export CARGO_TARGET_DIR="$tmp/cargo"
cargo package --manifest-path "$here/abi/rust/Cargo.toml" -p vivarium-sys --offline --allow-dirty -q 2>"$tmp/log" ||
  fail "cargo package fails"
tar xzf "$tmp"/cargo/package/vivarium-sys-0.1.0.crate
mv vivarium-sys-0.1.0 vivarium-sys
cargo package --manifest-path "$here/abi/rust/Cargo.toml" -p vivarium --list --offline --allow-dirty 2>"$tmp/log" |
  grep -v -e '^Cargo.lock$' -e '[.]orig$' -e '^[.]cargo' >files
while read -r file; do
  mkdir -p "vivarium/$(dirname "$file")"
  cp "$here/abi/rust/vivarium/$file" "vivarium/$file"
done <files
LD_LIBRARY_PATH=$build cargo test --manifest-path vivarium/Cargo.toml --offline -q >"$tmp/log" 2>&1 || fail "cargo test fails"
LD_LIBRARY_PATH=$build says cargo run --manifest-path vivarium/Cargo.toml --offline -q --example generate --

# Lua: the rock.
cp -r "$here/abi/lua" rock
(cd rock && luarocks --lua-version 5.1 make --tree "$tmp/rocks" --deps-mode none ./*.rockspec >"$tmp/log" 2>&1) ||
  fail "luarocks make fails"
LUA_PATH="$tmp/rocks/share/lua/5.1/?.lua" says luajit "$tmp"/rocks/lib/luarocks/rocks-5.1/vivarium/*/examples/generate.lua

# Go: a module of its own that requires the package.
mkdir program
cp "$here/abi/go/examples/generate/main.go" program/
cd program
export GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-mod=mod GOCACHE="$build/go/cache"
export CGO_CFLAGS="-I$here/abi -O2" CGO_LDFLAGS="-L$build"
printf 'module program\n\ngo 1.19\n\nrequire vivarium v0.0.0\n\nreplace vivarium => %s/abi/go\n' "$here" >go.mod
go build -o program . >"$tmp/log" 2>&1 || fail "go build fails"
LD_LIBRARY_PATH=$build says ./program
[ -z "$(gofmt -l "$here/abi/go" 2>/dev/null || true)" ] || fail "gofmt would change abi/go"
