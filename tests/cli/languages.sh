#!/bin/sh
# The library from other languages: each one's conformance list in this process and through a daemon, and
# its examples.
. tests/cli/lib.inc

if nm "$build/viv" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - other languages # skipped: sanitized library"
  exit 0
fi
PYTHONPATH=abi/python PYTHONDONTWRITEBYTECODE=1 LUA_PATH=abi/lua/?.lua
VIV_LIBRARY=$build/libvivarium.so VIV_PLUGIN_PATH=$build/plugins:$build/badplugins
VIV_SOCKET=$tmp/vivd.sock
export PYTHONPATH PYTHONDONTWRITEBYTECODE LUA_PATH VIV_LIBRARY VIV_PLUGIN_PATH VIV_SOCKET
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
mkdir "$tmp/good"
echo '{"model_type": "test-good"}' >"$tmp/good/config.json"

# conforms NAME PROGRAM [SOCKET]: the program prints its own lines.
conforms() {
  timeout 120 $2 "$stories" "$tmp/good" "$tmp" $3 2>"$tmp/err"
  check "$1: nothing fails" test $? -eq 0
  [ ! -s "$tmp/err" ] || sed 's/^/#   /' "$tmp/err"
}
python="python3 tests/languages/conformance.py" lua="luajit tests/languages/conformance.lua"
conforms Python "$python"
conforms LuaJIT "$lua"
check "the Python example generates" exits 0 python3 abi/python/examples/generate.py "$stories" "Once upon a time"
check "it says something" says "there was"
check "the LuaJIT example generates" exits 0 luajit abi/lua/examples/generate.lua "$stories" "Once upon a time"
check "it says the same" says "there was"

"$build/vivd" --state "$tmp/state" --plugins "$VIV_PLUGIN_PATH" 2>"$tmp/log" &
server=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ -S "$VIV_SOCKET" ] && break
  sleep 0.5
done
conforms "Python through the daemon" "$python" "$VIV_SOCKET"
conforms "LuaJIT through the daemon" "$lua" "$VIV_SOCKET"
check "the Python example uses the daemon" exits 0 python3 abi/python/examples/generate.py "$stories" "Once upon a time"
check "it says the same there" says "there was"
check "the Python example tokenizes" exits 0 python3 abi/python/examples/tokens.py "$stories" "a dog"
check "it shows tokens" says "'a'"
finish
