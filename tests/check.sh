#!/bin/sh
# Runs every test of a build folder and counts. Each unit test file is one Criterion program; the
# other tests are counted one by one. Ends with "N passed, N failed".
set -u
# The make that calls this must not steer the ones that tests call.
unset MAKEFLAGS MAKELEVEL MFLAGS
build=${1:-build}
export VIV_TEST_PLUGINS=$build/plugins VIV_TEST_BAD=$build/badplugins VIV_TEST_BUILD=$build
# Cases without weights of their own are judged on the zoo's models.
export VIV_ZOO="$PWD/zoo"
XDG_CACHE_HOME=$(mktemp -d)
export XDG_CACHE_HOME
log=$(mktemp)
trap 'rm -rf "$XDG_CACHE_HOME" "$log"' EXIT
passed=0 failed=0

fail() {
  failed=$((failed + ${2:-1}))
  echo "FAILED: $1"
}

# Criterion's last line holds the counts of the program.
unit() {
  timeout 300 "$1" >"$log" 2>&1
  status=$?
  line=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep 'Synthesis: Tested:' | tail -1)
  ok=$(echo "$line" | sed -n 's/.*Passing: *\([0-9]*\).*/\1/p')
  bad=$(echo "$line" | sed -n 's/.*Failing: *\([0-9]*\).*/\1/p')
  crashed=$(echo "$line" | sed -n 's/.*Crashing: *\([0-9]*\).*/\1/p')
  passed=$((passed + ${ok:-0}))
  if [ $status -ne 0 ] || [ -z "$line" ]; then
    cat "$log"
    bad=$((${bad:-0} + ${crashed:-0}))
    [ "$bad" -gt 0 ] || bad=1
    fail "$1 (status $status)" "$bad"
  else
    echo "ok: $1: $ok tests"
  fi
}

one() {
  name=$1
  shift
  if timeout 300 "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $name"
  else
    cat "$log"
    fail "$name"
  fi
}

for source in tests/unit/*.c; do
  test=$build/tests/$(basename "$source" .c)
  unit "$test"
done

# Trained weights that goldens of real models name: without them those goldens fail.
export VIV_WEIGHTS="${VIV_WEIGHTS:-build/weights}"
one "fetch_models" sh tests/fetch_models.sh

# Golden cases: the kept copies, and beside a checkout that has them, all cases of the same systems
# (of a system of which operations alone are kept, the operations). Operations go to the operation
# itself, everything else through the ordinary door. What is not run is listed, with the reason, in
# tests/goldens/skipped; what is too much to be kept in tests/goldens/elsewhere.
goldens() {
  for system in $(cd tests/goldens && { ls -d -- */ | tr -d /; sed -n 's|^\([^#/]*\)/.*|\1|p' elsewhere; } | sort -u); do
    whole=$({ ls "tests/goldens/$system" 2>/dev/null; sed -n "s|^$system/||p" tests/goldens/elsewhere; } |
      grep -v '^op-' | head -1)
    for case in "$1/$system"/*; do
      [ -f "$case/meta.json" ] || continue
      name=$system/$(basename "$case")
      case $whole:$name in :*/op-*) ;; :*) continue ;; esac
      if grep -q "^$name:" tests/goldens/skipped; then
        echo "not run: $name: $(sed -n "s|^$name: *||p" tests/goldens/skipped)"
      elif grep -q '"task": *"op"' "$case/meta.json"; then
        one "golden op $case" "$build/tests/golden_ops" "$case"
        grep '"task"' "$case/meta.json" | grep -qv '"task": *"op"' &&
          one "golden $case" "$build/viv" golden --quiet "$case"
      else
        one "golden $case" "$build/viv" golden --quiet "$case"
      fi
    done
  done
}
goldens tests/goldens
[ -d ../shared/goldens ] && goldens ../shared/goldens

# With a model to open, the validator's tests of evaluation run too.
for plugin in "$build"/plugins/*.so; do
  case $plugin in
  */llama.so) set -- --model tests/models/stories260K ;;
  */sambay.so) set -- --model zoo/models/sambay-reasoner ;;
  *) set -- ;;
  esac
  one "validate $plugin" "$build/viv-validate" "$@" "$plugin"
done
for script in tests/cli/*.sh; do
  [ -f "$script" ] && one "$script" sh "$script" "$build"
done
one "abi-check" make --no-print-directory abi-check BUILD="$build"
one "README" sh tests/readme.sh "$build"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
