//! Host calls with any pointers, lengths and values, on all paths: of a plugin that may wait, and of one that does not, which
//! is called directly and by way of a component. Those two must come to the same.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::{Boundary, Path, guest};

thread_local! {
    static BOUNDARIES: RefCell<[Boundary; 3]> =
        RefCell::new([Path::Direct, Path::Component, Path::Waits].map(|path| {
            let module = wat::parse_str(guest(path == Path::Waits)).expect("the guest is well-formed");
            Boundary::new(&module, path)
        }));
}

fuzz_target!(|input: &[u8]| {
    let [choice, rest @ ..] = input else { return };
    BOUNDARIES.with_borrow_mut(|[direct, component, waits]| match choice % 2 {
        0 => assert_eq!(direct.run(rest).0, component.run(rest).0),
        _ => drop(waits.run(rest)),
    });
});
