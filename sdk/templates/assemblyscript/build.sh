#!/bin/sh
# Makes plugins/new-plugin.wasm. A gateway that watches the folder takes it in at once.
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] || npm install --install-links
mkdir -p plugins
npx asc plugin.ts --transform tidegate/transform --use abort=~lib/tidegate/assembly/abi/abort \
  --runtime incremental -O2s --outFile plugins/.new-plugin.tmp
# The gateway sees the old file or the new, never half of one.
mv plugins/.new-plugin.tmp plugins/new-plugin.wasm
