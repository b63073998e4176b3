#!/bin/sh
# Convolutions against oneDNN, Debian's libdnnl, which is fetched into a scratch folder and not
# installed. Runs alternate; each figure is the median of the rounds, each round the fastest of several
# calls. oneDNN computes in the layouts that it likes best, without the cost of turning; ours is shown
# for channels-first and channels-last data. Ratios are ours over oneDNN's speed: above 1 we are faster.
#
#   tests/bench/bench_conv.sh [build folder [threads [rounds]]]     (build, 1, 5)
#
# JSON: BUILD/bench/conv-THREADS.json
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build} threads=${2:-1} rounds=${3:-5}
scratch=$build/peers/onednn
make -s BUILD="$build" "$build/bench/bench_conv" >/dev/null

if [ ! -d "$scratch/root" ]; then
  mkdir -p "$scratch"
  for package in libdnnl-dev libdnnl2 ocl-icd-libopencl1; do
    (cd "$scratch" && apt-get download -q "$package" >/dev/null 2>&1) ||
      { echo "bench_conv: apt-get could not fetch $package" >&2; exit 1; }
    dpkg -x "$scratch/$package"_*.deb "$scratch/root"
  done
fi
if [ ! -x "$scratch/peer" ] || [ tests/bench/peer_onednn.cpp -nt "$scratch/peer" ] ||
  [ tests/bench/conv_shapes.h -nt "$scratch/peer" ]; then
  lib=$(dirname "$(find "$scratch/root" -name libdnnl.so | head -1)")
  g++ -O2 -std=c++17 -I"$scratch/root/usr/include" -Itests/bench tests/bench/peer_onednn.cpp \
    -o "$scratch/peer" -L"$lib" -ldnnl -Wl,--allow-shlib-undefined
fi
LD_LIBRARY_PATH=$(dirname "$(find "$scratch/root" -name libdnnl.so | head -1)")
export LD_LIBRARY_PATH
version=$("$scratch/peer" version)
sgemm=$(OMP_NUM_THREADS=$threads "$scratch/peer" sgemm)

: >"$scratch/times"
round=0
while [ $round -lt "$rounds" ]; do
  "$build/bench/bench_conv" "$threads" times | sed 's/^/ours /' >>"$scratch/times"
  OMP_NUM_THREADS=$threads "$scratch/peer" | sed 's/^/peer /' >>"$scratch/times"
  round=$((round + 1))
done
"$build/bench/bench_conv" names >"$scratch/names"

awk -v json="$build/bench/conv-$threads.json" -v version="$version" -v threads="$threads" -v sgemm="$sgemm" '
function median(list, n,    i, j, t, v) {
  n = split(list, v, " ")
  for (i = 2; i <= n; i++)
    for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
  least = v[1]
  spread = v[int((n + 1) / 2)] > 0 ? (v[n] - v[1]) / v[int((n + 1) / 2)] : 0
  return v[int((n + 1) / 2)] + 0
}
FILENAME ~ /names$/ { i = $1; flops[i] = $2; net[i] = $3; sub(/^[^ ]+ [^ ]+ /, ""); name[i] = $0; shapes++; next }
$1 == "ours" { first[$2] = first[$2] " " $3; last[$2] = last[$2] " " $4 }
$1 == "peer" { peer[$2] = peer[$2] " " $3 }
END {
  printf "oneDNN %s, %s threads, its sgemm %.0f GFLOP/s: medians in ms (spread), ratios of speed\n", version, threads, sgemm / 1e9
  printf "%-46s %17s %17s %17s %6s %6s\n", "", "oneDNN", "channels first", "channels last", "first", "last"
  printf "{\"peer\":\"oneDNN %s\",\"threads\":%s,\"sgemm\":%s,\"shapes\":[", version, threads, sgemm > json
  for (i = 0; i < shapes; i++) {
    p = median(peer[i]); ps = spread; pl = least; f = median(first[i]); fs = spread; fl = least
    l = median(last[i]); ls = spread; ll = least
    printf "%-46s %9.3f (%3.0f%%) %9.3f (%3.0f%%) %9.3f (%3.0f%%) %6.2f %6.2f\n", name[i], p * 1e3,
      ps * 100, f * 1e3, fs * 100, l * 1e3, ls * 100, p / f, p / l
    best = f < l ? f : l
    n[net[i]]++; logs[net[i]] += log(p / best)
    if (!(net[i] in low) || p / best < low[net[i]]) low[net[i]] = p / best
    printf "%s{\"shape\":\"%s\",\"net\":\"%s\",\"flops\":%s,\"onednn\":%s,\"first\":%s,\"last\":%s,\"spread\":[%.3f,%.3f,%.3f],\"least\":[%.9f,%.9f,%.9f]}", \
      i ? "," : "", name[i], net[i], flops[i], p, f, l, ps, fs, ls, pl, fl, ll > json
  }
  print "]}" > json
  print ""
  for (k in n) printf "%-10s %2d shapes: geometric mean %.2f, lowest %.2f (the better layout)\n", k, n[k], exp(logs[k] / n[k]), low[k]
}' "$scratch/names" "$scratch/times"
