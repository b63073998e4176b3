#!/bin/sh
# Short-time Fourier transforms against FFTW 3 and KISS FFT of Debian, which are fetched into a scratch
# folder and not installed. One thread, processor time, the programs in turns; the fastest of the rounds.
#
#   tests/bench/bench_fft.sh [build folder [rounds]]     (build, 5)
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build} rounds=${2:-5}
scratch=$build/peers/fft
make -s BUILD="$build" "$build/bench/bench_fft" >/dev/null
if [ ! -d "$scratch/root" ]; then
  mkdir -p "$scratch"
  for package in libfftw3-dev libfftw3-single3 libkissfft-dev libkissfft-float131; do
    (cd "$scratch" && apt-get download -q "$package" >/dev/null 2>&1) ||
      { echo "bench_fft: apt-get could not fetch $package" >&2; exit 1; }
    dpkg -x "$scratch/$package"_*.deb "$scratch/root"
  done
fi
root=$scratch/root/usr
lib=$(dirname "$(find "$root" -name 'libfftw3f.so.3' | head -1)")
cc -O3 -march=native -DFFTW -I"$root/include" tests/bench/peer_fft.c -o "$scratch/fftw" "$lib/libfftw3f.so.3" -lm
cc -O3 -march=native -I"$root/include/kissfft" tests/bench/peer_fft.c -o "$scratch/kiss" \
  "$(find "$lib" -name 'libkissfft-float.so.*' | head -1)" -lm
LD_LIBRARY_PATH=$lib
export LD_LIBRARY_PATH
: >"$scratch/times"
for round in $(seq "$rounds"); do
  "$build/bench/bench_fft" | sed 's/^/ours /' >>"$scratch/times"
  for peer in fftw kiss; do "$scratch/$peer" | sed "s/^/$peer /" >>"$scratch/times"; done
done
sed -n 's/.*{{\(.*\)}}.*/\1/p' tests/bench/fft_cases.h | sed 's/}, {/\n/g' | tr ',' ' ' |
  awk -v times="$scratch/times" '
    { size[NR - 1] = $1; hop[NR - 1] = $2 }
    END {
      while ((getline line <times) > 0) {
        split(line, v, " ")
        key = v[1] " " v[2]
        if (!(key in best) || v[3] < best[key]) best[key] = v[3]
        wrong[key] = v[4]
      }
      print "10 s at 16 kHz, one thread: ms (largest error), and the speed over the faster peer"
      for (i = 0; i < NR; i++) {
        printf "%4d every %3d", size[i], hop[i]
        peer = 1e9
        for (j = split("ours fftw kiss", who, " "); j >= 1; j--) {
          key = who[j] " " i
          if (key in best && who[j] != "ours" && best[key] < peer) peer = best[key]
        }
        for (j = 1; j <= 3; j++) {
          key = who[j] " " i
          if (key in best) printf "  %s %.3f (%s)", who[j], best[key] * 1e3, wrong[key]
        }
        printf "  %.2f\n", peer / best["ours " i]
      }
    }'
