#!/bin/sh
# Builds the Rust crates and the Go package with their examples, and the conformance programs in C, Rust and Go,
# against the library of BUILD, into BUILD/rust, BUILD/go and BUILD/tests. Neither fetches anything.
set -eu
build=$(cd "${1:?usage: sh tests/languages/build.sh BUILD}" && pwd)
for tool in cargo go; do
  command -v $tool >/dev/null || { echo "$tool is missing: ./setup check installs it" >&2; exit 1; }
done
export VIVARIUM_LIB_DIR="$build" CARGO_TARGET_DIR="$build/rust" LD_LIBRARY_PATH="$build"
mkdir -p "$build/go"
cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Iabi -o "$build/tests/conformance_c" tests/languages/conformance.c \
  -L"$build" -lvivarium -lpthread
cargo build --manifest-path abi/rust/Cargo.toml --offline -q --release --examples
cargo build --manifest-path tests/languages/Cargo.toml --offline -q --release
cargo test --manifest-path abi/rust/Cargo.toml --offline -q --release
export CGO_CFLAGS="-I$PWD/abi -O2" CGO_LDFLAGS="-L$build" GOPROXY=off GOTOOLCHAIN=local GOCACHE="$build/go/cache"
cd abi/go
go vet ./...
go build -o "$build/go/" ./examples/...
go build -o "$build/go/conformance" ../../tests/languages/conformance.go
go build -o "$build/go/null_jobs" ../../tests/bench/null_jobs/null_jobs.go
