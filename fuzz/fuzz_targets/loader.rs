//! Files that claim to be plugins: an input's bytes themselves, and real plugins that it has changed. Every eighth of
//! those is compiled, and its hooks and imports are checked.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::{Loader, guest, load};

thread_local! {
    static LOADER: RefCell<Loader> = RefCell::new(Loader::new(seeds()));
}

fuzz_target!(|input: &[u8]| {
    let [choice, rest @ ..] = input else { return };
    LOADER.with_borrow_mut(|loader| match choice % 16 {
        0..8 => drop(load(rest)),
        8..14 => drop(loader.mutated(rest)),
        _ => drop(loader.checked(rest)),
    });
});

fn seeds() -> Vec<Vec<u8>> {
    let module = |text: &str| wat::parse_str(text).expect("the seed is well-formed");
    let mark = module(include_str!("../../tests/it/guests/mark.wat"));
    let topics = module(include_str!("../../tests/it/guests/topics.wat"));
    let component = |bytes: &[u8]| load(bytes).expect("the seed is a plugin").1;
    vec![component(&mark), component(&topics), mark, topics, module(&guest(false))]
}
