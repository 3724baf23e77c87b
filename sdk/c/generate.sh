#!/bin/sh
# Writes bindings/ anew from ../wit: needed after a change of the interface only.
# Wants wit-bindgen: cargo install wit-bindgen-cli@0.61.1 --no-default-features --features c
set -eu
cd "$(dirname "$0")"

# Short names: tide_session_send instead of tidegate_plugin_session_send.
set --
for interface in $(sed -n 's/^interface \([a-z-]*\) {$/\1/p' ../wit/tidegate.wit); do
    set -- "$@" --rename "tidegate:plugin/$interface@0.1.0=tide_$(echo "$interface" | tr - _)"
done

# No object file: the gateway describes the module by the hooks that it exports, so that one binding serves plugins of
# all combinations of hooks.
wit-bindgen c --world plugin --rename-world tide --no-object-file "$@" --out-dir bindings ../wit/tidegate.wit

# A hook is compiled only if the plugin asks for it by TIDE_ON_…; memory is tidegate.c's; no object file is linked.
awk '
    /^\/\/ Ensure that the \*_component_type.o/ { exit }
    /__export_name__\("cabi_realloc"\)/ { skip = 1 }
    /^__attribute__\(\(.*__export_name__\(".*tidegate:plugin\/on-/ {
        hook = $0
        sub(/.*tidegate:plugin\/on-/, "", hook)
        sub(/@.*/, "", hook)
        print "#ifdef TIDE_ON_" toupper(hook)
        inside = 1
    }
    !skip { print }
    /^}/ {
        if (inside) print "#endif"
        inside = skip = 0
    }
' bindings/tide.c > bindings/tide.c.new
mv bindings/tide.c.new bindings/tide.c
