//! What fuzzers call: functions of bytes that must keep their promises whatever the bytes are.
//!
//! The tests here feed each of them some thousand inputs, the same in every run, so that `cargo test` finds what is easy
//! to find. `fuzz/` hands the same functions to libFuzzer, which looks further. Not part of the gateway: this module is
//! there in tests and with the feature `fuzzing` only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a promise that is not kept is found by its panic"
)]

mod boundary;
mod decoder;
mod guest;
mod heads;
mod input;
mod loader;
mod promises;
mod replay;
mod script;

pub use boundary::{Boundary, Path};
pub use decoder::decoder;
pub use guest::guest;
pub use heads::heads;
pub use loader::{Loader, load};
pub use replay::Replays;

#[cfg(test)]
mod tests {
    use super::input::Random;
    use super::*;

    /// `TIDEGATE_FUZZ=20` runs twenty times as many inputs, `TIDEGATE_FUZZ_SEED` others.
    fn feed(count: usize, longest: usize, mut to: impl FnMut(&[u8])) {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seed = number("TIDEGATE_FUZZ_SEED").unwrap_or(1);
        let mut random = Random(seed);
        for _ in 0..count * number("TIDEGATE_FUZZ").unwrap_or(1) as usize {
            let length = random.below(longest as u64) as usize + 1;
            let input = random.bytes(length);
            let shown = Shown(&input);
            to(&input);
            std::mem::forget(shown);
        }
    }

    /// Says which input it was, as libFuzzer would keep it in a file.
    struct Shown<'a>(&'a [u8]);

    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the input was {hex}");
        }
    }

    #[test]
    fn frames_are_the_same_however_they_arrive() {
        feed(6_000, 300, decoder);
    }

    #[test]
    fn requests_are_the_same_however_they_arrive() {
        feed(1_500, 80, heads);
    }

    #[test]
    fn no_file_makes_the_loader_panic() {
        let seeds: Vec<_> = seeds().into_iter().map(|(_, bytes)| bytes).collect();
        let loader = Loader::new(seeds);
        feed(3_000, 200, |input| drop(loader.mutated(input)));
        feed(2_000, 300, |input| drop(load(input)));
    }

    #[test]
    fn what_the_loader_takes_can_be_checked() {
        let small = seeds().into_iter().filter(|(name, _)| *name != "guest").map(|(_, bytes)| bytes).collect();
        let mut loader = Loader::new(small);
        let mut template = 0;
        feed(400, 60, |input| template += usize::from(loader.checked(input)));
        assert!(template > 20, "almost nothing got as far as the checks: {template}");
    }

    #[test]
    fn no_call_breaks_the_host() {
        for path in [Path::Direct, Path::Component, Path::Waits] {
            let mut boundary = Boundary::new(&wat::parse_str(guest(path == Path::Waits)).unwrap(), path);
            feed(6_000, 500, |input| drop(boundary.run(input)));
            let seen = boundary.seen();
            for what in ["ok", "error", "trap", "quota", "memory"] {
                assert!(seen.contains_key(what), "no call ended with {what}: {seen:?}");
            }
            assert!(boundary.effects() > 1_000, "hardly an effect was accepted: {}", boundary.effects());
        }
    }

    /// wasmtime's component model is what the gateway's own canonical ABI is measured by.
    #[test]
    fn a_call_comes_to_the_same_directly_and_by_way_of_a_component() {
        let module = wat::parse_str(guest(false)).unwrap();
        let [mut direct, mut component] = [Path::Direct, Path::Component].map(|path| Boundary::new(&module, path));
        feed(6_000, 500, |input| {
            let ((one, why), (other, why_not)) = (direct.run(input), component.run(input));
            assert_eq!(one, other, "{why:?}, {why_not:?}");
        });
        assert!(direct.effects() > 1_000, "hardly an effect was accepted: {}", direct.effects());
    }

    #[test]
    fn no_recording_breaks_the_replay() {
        let plugin = wat::parse_str(include_str!("../../tests/it/guests/teller.wat")).unwrap();
        let mut replays = Replays::new(&plugin);
        feed(4_000, 120, |input| replays.run(input));
        assert!(replays.replayed() > 500, "hardly a call was made: {}", replays.replayed());
    }

    fn seeds() -> Vec<(&'static str, Vec<u8>)> {
        let module = |text: &str| wat::parse_str(text).unwrap();
        let bare = module(include_str!("../../tests/it/guests/mark.wat"));
        let component = load(&bare).unwrap().1;
        let topics = module(include_str!("../../tests/it/guests/topics.wat"));
        let topics_component = load(&topics).unwrap().1;
        vec![
            ("bare", bare),
            ("component", component),
            ("topics", topics),
            ("topics as a component", topics_component),
            ("guest", module(&guest(true))),
        ]
    }
}
