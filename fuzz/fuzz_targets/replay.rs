//! Lines that claim to be of a recording: real ones with something wrong in them, replayed on a plugin.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::Replays;

thread_local! {
    static REPLAYS: RefCell<Replays> = RefCell::new(Replays::new(
        &wat::parse_str(include_str!("../../tests/it/guests/teller.wat")).expect("the guest is well-formed"),
    ));
}

fuzz_target!(|input: &[u8]| REPLAYS.with_borrow_mut(|replays| replays.run(input)));
