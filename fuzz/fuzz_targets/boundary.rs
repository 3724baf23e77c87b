//! Host calls with any pointers, lengths and values, on both paths: of a plugin that may wait, and of one that does not.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::{Boundary, guest};

thread_local! {
    static BOUNDARIES: RefCell<[Boundary; 2]> = RefCell::new([false, true].map(|waits| {
        Boundary::new(&wat::parse_str(guest(waits)).expect("the guest is well-formed"))
    }));
}

fuzz_target!(|input: &[u8]| {
    let [choice, rest @ ..] = input else { return };
    BOUNDARIES.with_borrow_mut(|boundaries| boundaries[usize::from(choice % 2)].run(rest));
});
