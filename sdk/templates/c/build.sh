#!/bin/sh
# Makes plugins/new-plugin.wasm. A gateway that watches the folder takes it in at once.
set -eu
cd "$(dirname "$0")"
mkdir -p plugins
# Debian's wasi-libc is in /usr; the WASI SDK's clang knows its own.
if [ -d /usr/include/wasm32-wasi ] && [ -z "${WASI_SDK_PATH:-}" ]; then sysroot=--sysroot=/usr; else sysroot=; fi
"${CC:-${WASI_SDK_PATH:+$WASI_SDK_PATH/bin/}clang}" --target=wasm32-wasi $sysroot -mexec-model=reactor -Os -I sdk/c plugin.c \
  -Wl,--strip-debug -o plugins/.new-plugin.tmp
# The gateway sees the old file or the new, never half of one.
mv plugins/.new-plugin.tmp plugins/new-plugin.wasm
