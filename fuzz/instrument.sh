#!/bin/sh
# Cargo's compiler, for the fuzz targets: what is fuzzed tells libFuzzer which of its branches were taken. Only that is
# instrumented, so the engine (minutes of compilation, and nothing that is looked at here) stays as it is. What cargo
# builds for itself (no --target: macros that use the same crates) must not need libFuzzer.
compiler=$1
shift
case " $* " in
*" --target "*) ;;
*) exec "$compiler" "$@" ;;
esac
for argument in "$@"; do
    if [ "$previous" = --crate-name ]; then
        case $argument in
        tidegate | frames | heads | loader | smith | boundary | replay | wit_component | wit_parser | wasmparser)
            exec "$compiler" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
            ;;
        esac
    fi
    previous=$argument
done
exec "$compiler" "$@"
