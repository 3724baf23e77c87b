//! Requests that a client sends, in any form, however the network cuts them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidegate::fuzzing::heads(input));
