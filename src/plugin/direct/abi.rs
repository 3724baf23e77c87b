//! The canonical ABI: how values of the interface's types lie in a guest's memory, and how they are flattened into the
//! numbers that core functions take. Here is what all types share; `plain.rs` and `compound.rs` have those of the ABI,
//! `types.rs` those of the interface.
//!
//! Source: the component model's CanonicalABI.md ("Alignment", "Element size", "Loading", "Storing", "Flattening"). Only
//! the types that sdk/wit uses are here; strings are UTF-8. Flattened variants whose cases disagree on a number's type do
//! not occur in the interface, which `mod.rs` checks against wit-parser.

use wasmtime::{Error, Result, ValRaw, ValType};

use super::guest::Guest;

/// Numbers that a function's parameters take at the most; more would go by memory, and no function has so many.
pub const FLAT_MAX: usize = 16;

/// A type's layout. Sizes in bytes.
pub trait Type {
    const SIZE: usize;
    const ALIGN: usize;
    /// Numbers that it is flattened into.
    const COUNT: usize;
    fn flatten(types: &mut Vec<ValType>);
}

/// A value that comes from a guest.
pub trait Lift: Type + Sized {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self>;
    /// `at` is aligned; what lies beyond the memory's end is an error.
    fn load(at: usize, source: &mut Source<'_>) -> Result<Self>;

    fn load_list(at: usize, count: usize, source: &mut Source<'_>) -> Result<Vec<Self>> {
        source.charge(count.saturating_mul(size_of::<Self>()))?;
        (0..count).map(|place| Self::load(at + place * Self::SIZE, source)).collect()
    }
}

/// A value that goes to a guest.
pub trait Lower: Type {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()>;
    /// `at` is aligned and within the memory.
    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()>;

    fn store_list(list: &[Self], guest: &mut Guest<'_>, at: usize) -> Result<()>
    where
        Self: Sized,
    {
        list.iter().enumerate().try_for_each(|(place, value)| value.store(guest, at + place * Self::SIZE))
    }
}

/// The numbers that a guest calls with, read one after the other.
pub struct Flat<'a>(pub &'a [ValRaw]);

impl Flat<'_> {
    pub fn next(&mut self) -> ValRaw {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => ValRaw::i64(0),
        }
    }

    pub fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }
}

/// The numbers that a guest is called with.
pub struct Flattened {
    values: [ValRaw; FLAT_MAX],
    count: usize,
}

impl Flattened {
    pub fn new() -> Self {
        Self { values: [ValRaw::i64(0); FLAT_MAX], count: 0 }
    }

    pub fn push(&mut self, value: ValRaw) {
        if let Some(place) = self.values.get_mut(self.count) {
            *place = value;
            self.count += 1;
        }
    }

    pub fn zeros(&mut self, count: usize) {
        self.count = (self.count + count).min(FLAT_MAX);
    }

    /// Room for a call: the parameters, then the result in place of the first.
    pub fn room(&mut self) -> &mut [ValRaw] {
        &mut self.values[..self.count.max(1)]
    }
}

/// A guest's memory, to be read, and how much of it may be copied in one host call: pointers that all show to the same
/// bytes multiply them.
pub struct Source<'a> {
    memory: &'a [u8],
    left: usize,
}

impl<'a> Source<'a> {
    pub fn new(memory: &'a [u8], limit: usize) -> Self {
        Self { memory, left: limit }
    }

    pub fn bytes(&self, at: usize, length: usize) -> Result<&'a [u8]> {
        let beyond = || mistake(format!("{length} bytes at {at} are not in its memory of {}", self.memory.len()));
        self.memory.get(at..).and_then(|rest| rest.get(..length)).ok_or_else(beyond)
    }

    pub fn text(&self, at: usize, length: usize) -> Result<&'a str> {
        let text = simdutf8::basic::from_utf8(self.bytes(at, length)?);
        text.map_err(|_| mistake(format!("the text of {length} bytes at {at} is not UTF-8")))
    }

    pub fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(at, N)?);
        Ok(array)
    }

    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        let left = self.left.checked_sub(bytes);
        self.left =
            left.ok_or_else(|| mistake("what it hands over is larger than its memory (`memory`)".to_owned()))?;
        Ok(())
    }

    /// Where a list or a string lies, and how long it is.
    pub fn place(&self, at: usize) -> Result<(usize, usize)> {
        let number = |at| self.array(at).map(|bytes| u32::from_le_bytes(bytes) as usize);
        Ok((number(at)?, number(at + 4)?))
    }
}

/// What a guest must not do; it traps.
pub fn mistake(what: String) -> Error {
    Error::msg(what)
}

/// The address of a value of this alignment, which the guest has given.
pub fn aligned(at: u32, align: usize) -> Result<usize> {
    let at = at as usize;
    if at.is_multiple_of(align) { Ok(at) } else { Err(mistake(format!("the pointer {at} is not aligned to {align}"))) }
}

pub const fn align_to(at: usize, align: usize) -> usize {
    at.div_ceil(align) * align
}

pub const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// Where the payload of a variant with fewer than 257 cases lies.
pub const fn payload(align: usize) -> usize {
    align_to(1, align)
}

/// The size of such a variant, by its largest and its most aligned payload.
pub const fn variant(size: usize, align: usize) -> usize {
    align_to(payload(align) + size, align)
}

pub fn no_case(number: u32) -> Error {
    mistake(format!("{number} is not a case of its type"))
}
