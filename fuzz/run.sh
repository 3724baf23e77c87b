#!/bin/sh
# Builds and runs one fuzz target with the stable compiler: fuzz/run.sh TARGET [libFuzzer's options]. The inputs that it
# has found worth keeping are in fuzz/corpus/TARGET, those that broke a promise in fuzz/artifacts/TARGET.
set -eu
cd "$(dirname "$0")"
target=${1:?"which one? frames, heads, loader, smith, boundary or replay"}
shift
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTC_WRAPPER="$PWD/instrument.sh" cargo build --release --target "$host" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
exec "${CARGO_TARGET_DIR:-target}/$host/release/$target" "corpus/$target" "-artifact_prefix=artifacts/$target/" -max_len=4096 "$@"
