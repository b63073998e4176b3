#!/bin/sh
# The library from other languages: each one's conformance list in this process and through a daemon, and
# its examples.
. tests/cli/lib.inc

sanitized=
if nm "$build/viv" 2>/dev/null | grep -q -e __tsan_init; then
  echo "ok - other languages # skipped: sanitized library"
  exit 0
elif nm "$build/viv" 2>/dev/null | grep -q -e __asan_init; then
  sanitized=1 # other languages' programs can't load it; C's list runs, and its leaks are told
fi
PYTHONPATH=abi/python PYTHONDONTWRITEBYTECODE=1 LUA_PATH=abi/lua/?.lua
VIV_LIBRARY=$build/libvivarium.so VIV_PLUGIN_PATH=$build/plugins:$build/badplugins
VIV_SOCKET=$tmp/vivd.sock
export PYTHONPATH PYTHONDONTWRITEBYTECODE LUA_PATH VIV_LIBRARY VIV_PLUGIN_PATH VIV_SOCKET
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
mkdir "$tmp/good"
echo '{"model_type": "test-good"}' >"$tmp/good/config.json"

# conforms NAME PROGRAM [SOCKET]: the program prints its own lines; those that begin with # are the same everywhere.
conforms() {
  timeout 120 $2 "$stories" "$tmp/good" "$tmp" $3 >"$tmp/list" 2>"$tmp/err"
  code=$?
  grep -v '^# ' "$tmp/list"
  check "$1: nothing fails" test $code -eq 0
  [ ! -s "$tmp/err" ] || sed 's/^/#   /' "$tmp/err"
  grep '^# ' "$tmp/list" >"$tmp/texts"
  [ -s "$tmp/texts.c" ] || cp "$tmp/texts" "$tmp/texts.c"
  check "$1: what is said and how failures read are C's to the letter" diff "$tmp/texts.c" "$tmp/texts"
}
# serve: the daemon, which listens.
serve() {
  "$build/vivd" --state "$tmp/state" --plugins "$VIV_PLUGIN_PATH" 2>"$tmp/log" &
  server=$!
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -S "$VIV_SOCKET" ] && break
    sleep 0.5
  done
}
if [ -n "$sanitized" ]; then
  check "C's list builds" cc -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined -Iabi -o "$build/tests/conformance_c" tests/languages/conformance.c \
    -L"$build" -lvivarium -lpthread
  LD_LIBRARY_PATH=$build
  export LD_LIBRARY_PATH
  conforms "C, sanitized" "$build/tests/conformance_c"
  serve
  conforms "C through the daemon, sanitized" "$build/tests/conformance_c" "$VIV_SOCKET"
  kill "$server"
  wait "$server"
  check "the daemon ends without a complaint" test $? -eq 0
  check "nor did it complain before" sh -c "! grep -e 'ERROR: .*Sanitizer' -e 'runtime error' '$tmp/log'"
  server=
  finish
fi
check "the Rust crates and the Go package build" sh tests/languages/build.sh "$build"
LD_LIBRARY_PATH=$build
export LD_LIBRARY_PATH
python="python3 tests/languages/conformance.py" lua="luajit tests/languages/conformance.lua"
rust=$build/rust/release/examples go=$build/go
# The python for what needs Debian's packages.
arrays=
for p in python3 /usr/bin/python3; do
  [ -n "$arrays" ] || ! $p -c "import numpy, setuptools, wheel, mypy" 2>/dev/null || arrays=$p
done
check "NumPy, setuptools, wheel and mypy are there (./setup check installs them)" test -n "$arrays"
check "an sdist, a wheel, crates, a rock and a module, built and used" \
  sh tests/languages/packages.sh "$build" "$stories" "$arrays"
picture="zoo/models/people-detector tests/data/people/0005.jpg"
# examples LANGUAGE GENERATE TOKENS DETECT
examples() {
  check "$1: the example generates" exits 0 $2 "$stories" "Once upon a time"
  check "$1: it says what the model says" says "there was"
  check "$1: the example tokenizes" exits 0 $3 "$stories" "a dog"
  check "$1: it shows tokens" says 'do'
  check "$1: the example detects" exits 0 $4 $picture
  check "$1: it finds four people" test "$(grep -c '^0\.[5-9]' "$tmp/out")" -eq 4
  check "$1: the first one here" says '^0.901 .187.0,* 133.6,* 222.3,* 239.8'
}
conforms C "$build/tests/conformance_c"
conforms Python "$python"
conforms LuaJIT "$lua"
conforms Rust "$build/rust/release/conformance"
conforms Go "$go/conformance"
timeout 120 $arrays tests/languages/dlpack.py "$tmp/good"
check "DLPack: nothing fails" test $? -eq 0
examples Python "python3 abi/python/examples/generate.py" "python3 abi/python/examples/tokens.py" \
  "python3 abi/python/examples/detect.py"
examples LuaJIT "luajit abi/lua/examples/generate.lua" "luajit abi/lua/examples/tokens.lua" \
  "luajit abi/lua/examples/detect.lua"
examples Rust "$rust/generate" "$rust/tokens" "$rust/detect"
examples Go "$go/generate" "$go/tokens" "$go/detect"

serve
conforms "C through the daemon" "$build/tests/conformance_c" "$VIV_SOCKET"
conforms "Python through the daemon" "$python" "$VIV_SOCKET"
timeout 120 $arrays tests/languages/dlpack.py "$tmp/good" "$VIV_SOCKET"
check "DLPack through the daemon: nothing fails" test $? -eq 0
conforms "LuaJIT through the daemon" "$lua" "$VIV_SOCKET"
conforms "Rust through the daemon" "$build/rust/release/conformance" "$VIV_SOCKET"
conforms "Go through the daemon" "$go/conformance" "$VIV_SOCKET"
for example in "python3 abi/python/examples/generate.py" "luajit abi/lua/examples/generate.lua" \
  "$rust/generate" "$go/generate"; do
  check "$example uses the daemon" exits 0 $example "$stories" "Once upon a time"
  check "it says the same there" says "there was"
done
finish
