//! Whatever a client sends, however the network cuts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate::fuzzing::decoder(input));
