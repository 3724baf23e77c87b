#!/bin/sh
# Makes plugins/new-plugin.wasm. A gateway that watches the folder takes it in at once.
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] || npm install
mkdir -p plugins
node sdk/js/build.mjs plugin.js plugins/new-plugin.wasm
