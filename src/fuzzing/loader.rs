//! Files that claim to be plugins: anything, and real ones with something wrong in them.

use wasmtime::Engine;

use super::input::Input;
use crate::plugin::inside::{Code, Encoded, Form, Template, encoded};

/// The most that is compiled, in bytes: the compiler is not what is looked at.
const SMALL: usize = 16 << 10;

/// What a file's bytes become; an error is an answer as well.
pub fn load(bytes: &[u8]) -> Option<(Form, Vec<u8>)> {
    match encoded(bytes) {
        Ok(Encoded { form, component, .. }) => {
            assert!(component.starts_with(b"\0asm"), "not a WebAssembly file came out");
            Some((form, component))
        }
        Err(error) => {
            assert!(!format!("{error:#}").is_empty(), "an error without a sentence");
            None
        }
    }
}

/// Loads real plugins that an input has changed.
pub struct Loader {
    seeds: Vec<Vec<u8>>,
    engine: Engine,
}

impl Loader {
    pub fn new(seeds: Vec<Vec<u8>>) -> Self {
        Self { seeds, engine: crate::plugin::engine(crate::plugin::Room::of(&Default::default())).unwrap() }
    }

    /// A changed plugin, up to a component.
    pub fn mutated(&self, input: &[u8]) -> Option<(Form, Vec<u8>)> {
        load(&self.mutate(&mut Input::new(input)))
    }

    /// A changed plugin, past the compiler and through the checks of its hooks and imports. Says whether it got there.
    pub fn checked(&mut self, input: &[u8]) -> bool {
        let file = self.mutate(&mut Input::new(input));
        let Ok(encoded) = encoded(&file) else { return false };
        if encoded.component.len() > SMALL {
            return false;
        }
        let Ok(code) = Code::new(&self.engine, &file, &encoded) else { return false };
        if let Err(error) = Template::new(&self.engine, &code) {
            let error = format!("{error:#}");
            assert!(!error.is_empty(), "an error without a sentence");
            assert!(!encoded.is_direct, "what was to be called directly cannot be: {error}");
        }
        true
    }

    fn mutate(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut bytes = self.seeds[input.below(self.seeds.len())].clone();
        for _ in 0..=input.below(6) {
            if bytes.is_empty() {
                break;
            }
            let at = input.below(bytes.len());
            match input.below(9) {
                0 => bytes[at] ^= 1 << (input.byte() % 8),
                1 => bytes[at] = input.byte(),
                2 => bytes.truncate(at),
                3 => bytes[at] = input.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                4 => drop(bytes.remove(at)),
                5 => bytes.insert(at, input.byte()),
                6 => {
                    // A name, mostly: one letter of a hook, an import, a version.
                    if let Some(found) = bytes[at..].iter().position(|byte| byte.is_ascii_alphabetic()) {
                        bytes[at + found] = input.pick(b"abz@#/0-");
                    }
                }
                7 => self.splice(input, &mut bytes),
                _ => swap(input, &mut bytes),
            }
        }
        bytes
    }

    /// A section of another plugin, in place of one or beside it.
    fn splice(&self, input: &mut Input<'_>, bytes: &mut Vec<u8>) {
        let other = &self.seeds[input.below(self.seeds.len())];
        let (theirs, ours) = (sections(other), sections(bytes));
        if theirs.is_empty() || ours.is_empty() {
            return;
        }
        let section = other[theirs[input.below(theirs.len())].clone()].to_vec();
        let place = ours[input.below(ours.len())].clone();
        let place = if input.often(128) { place } else { place.end..place.end };
        bytes.splice(place, section);
    }
}

/// Two sections change places.
fn swap(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    let sections = sections(bytes);
    if sections.len() < 2 {
        return;
    }
    let (one, other) = (input.below(sections.len()), input.below(sections.len()));
    let (first, last) = (sections[one.min(other)].clone(), sections[one.max(other)].clone());
    if first.end <= last.start {
        let parts = [
            &bytes[..first.start],
            &bytes[last.clone()],
            &bytes[first.end..last.start],
            &bytes[first],
            &bytes[last.end..],
        ];
        *bytes = parts.concat();
    }
}

/// Where the sections of a module or of a component lie, as far as they can be followed.
fn sections(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let (mut length, mut shift, mut head) = (0_usize, 0, 1);
        while let Some(byte) = bytes.get(at + head) {
            length |= usize::from(byte & 0x7f) << shift;
            (shift, head) = (shift + 7, head + 1);
            if byte & 0x80 == 0 || shift > 28 {
                break;
            }
        }
        let end = at + head + length;
        if end > bytes.len() {
            break;
        }
        found.push(at..end);
        at = end;
    }
    found
}
