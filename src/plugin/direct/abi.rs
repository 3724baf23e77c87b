//! The canonical ABI: how values of the interface's types lie in a guest's memory, and how they are flattened into the
//! numbers that core functions take.
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
    fn next(&mut self) -> ValRaw {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => ValRaw::i64(0),
        }
    }

    fn skip(&mut self, count: usize) {
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

    fn zeros(&mut self, count: usize) {
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

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(at, N)?);
        Ok(array)
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        let left = self.left.checked_sub(bytes);
        self.left =
            left.ok_or_else(|| mistake("what it hands over is larger than its memory (`memory`)".to_owned()))?;
        Ok(())
    }

    /// Where a list or a string lies, and how long it is.
    fn place(&self, at: usize) -> Result<(usize, usize)> {
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

const fn align_to(at: usize, align: usize) -> usize {
    at.div_ceil(align) * align
}

const fn max(one: usize, other: usize) -> usize {
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

macro_rules! numbers {
    ($($type:ty, $core:ident, $get:ident, $make:ident, $as:ty;)*) => {$(
        impl Type for $type {
            const SIZE: usize = size_of::<Self>();
            const ALIGN: usize = size_of::<Self>();
            const COUNT: usize = 1;

            fn flatten(types: &mut Vec<ValType>) {
                types.push(ValType::$core);
            }
        }

        impl Lift for $type {
            fn lift(flat: &mut Flat<'_>, _: &mut Source<'_>) -> Result<Self> {
                Ok(flat.next().$get() as Self)
            }

            fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
                Ok(Self::from_le_bytes(source.array(at)?))
            }
        }

        impl Lower for $type {
            fn lower(&self, _: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
                flat.push(ValRaw::$make(*self as $as));
                Ok(())
            }

            fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
                guest.write(at, &self.to_le_bytes())
            }
        }
    )*};
}

numbers! {
    u16, I32, get_u32, u32, u32;
    u32, I32, get_u32, u32, u32;
    u64, I64, get_u64, u64, u64;
}

impl Type for u8 {
    const SIZE: usize = 1;
    const ALIGN: usize = 1;
    const COUNT: usize = 1;

    fn flatten(types: &mut Vec<ValType>) {
        types.push(ValType::I32);
    }
}

impl Lift for u8 {
    fn lift(flat: &mut Flat<'_>, _: &mut Source<'_>) -> Result<Self> {
        Ok(flat.next().get_u32() as Self)
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        Ok(u8::from_le_bytes(source.array(at)?))
    }

    fn load_list(at: usize, count: usize, source: &mut Source<'_>) -> Result<Vec<Self>> {
        let bytes = source.bytes(at, count)?;
        source.charge(count)?;
        Ok(bytes.to_vec())
    }
}

impl Lower for u8 {
    fn lower(&self, _: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        flat.push(ValRaw::u32((*self).into()));
        Ok(())
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        guest.write(at, &[*self])
    }

    fn store_list(list: &[Self], guest: &mut Guest<'_>, at: usize) -> Result<()> {
        guest.write(at, list)
    }
}

impl Type for bool {
    const SIZE: usize = 1;
    const ALIGN: usize = 1;
    const COUNT: usize = 1;

    fn flatten(types: &mut Vec<ValType>) {
        types.push(ValType::I32);
    }
}

impl Lower for bool {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        u8::from(*self).lower(guest, flat)
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        u8::from(*self).store(guest, at)
    }
}

impl Type for f64 {
    const SIZE: usize = 8;
    const ALIGN: usize = 8;
    const COUNT: usize = 1;

    fn flatten(types: &mut Vec<ValType>) {
        types.push(ValType::F64);
    }
}

impl Lift for f64 {
    fn lift(flat: &mut Flat<'_>, _: &mut Source<'_>) -> Result<Self> {
        Ok(Self::from_bits(flat.next().get_f64()))
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        Ok(Self::from_le_bytes(source.array(at)?))
    }
}

/// Nothing: what a function without a result answers.
impl Type for () {
    const SIZE: usize = 0;
    const ALIGN: usize = 1;
    const COUNT: usize = 0;

    fn flatten(_: &mut Vec<ValType>) {}
}

impl Lift for () {
    fn lift(_: &mut Flat<'_>, _: &mut Source<'_>) -> Result<Self> {
        Ok(())
    }

    fn load(_: usize, _: &mut Source<'_>) -> Result<Self> {
        Ok(())
    }
}

impl Lower for () {
    fn lower(&self, _: &mut Guest<'_>, _: &mut Flattened) -> Result<()> {
        Ok(())
    }

    fn store(&self, _: &mut Guest<'_>, _: usize) -> Result<()> {
        Ok(())
    }
}

/// Strings and lists: a pointer and a length.
macro_rules! pointed {
    ($([$($generic:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generic)*> Type for $type {
            const SIZE: usize = 8;
            const ALIGN: usize = 4;
            const COUNT: usize = 2;

            fn flatten(types: &mut Vec<ValType>) {
                types.extend([ValType::I32, ValType::I32]);
            }
        }
    )*};
}

pointed!([] String, [] &str, [] &[u8], [T: Type] Vec<T>);

impl Lift for String {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        text(flat.next().get_u32() as usize, flat.next().get_u32() as usize, source)
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        let (at, length) = source.place(at)?;
        text(at, length, source)
    }
}

fn text(at: usize, length: usize, source: &mut Source<'_>) -> Result<String> {
    let text = source.text(at, length)?;
    source.charge(length)?;
    Ok(text.to_owned())
}

impl<T: Lift> Lift for Vec<T> {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        list(flat.next().get_u32() as usize, flat.next().get_u32() as usize, source)
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        let (at, count) = source.place(at)?;
        list(at, count, source)
    }
}

fn list<T: Lift>(at: usize, count: usize, source: &mut Source<'_>) -> Result<Vec<T>> {
    // A list that is not all in the memory is refused before anything of it is read.
    source.bytes(at, count.saturating_mul(T::SIZE))?;
    T::load_list(aligned(at as u32, T::ALIGN)?, count, source)
}

/// What a guest is given by a pointer and a length lies in room that it has made for it.
macro_rules! lowered {
    ($([$($generic:tt)*] $type:ty, $item:ty, $as:ident;)*) => {$(
        impl<$($generic)*> Lower for $type {
            fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
                let (at, count) = given::<$item>(self.$as(), guest)?;
                flat.push(ValRaw::u32(at));
                flat.push(ValRaw::u32(count));
                Ok(())
            }

            fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
                let (place, count) = given::<$item>(self.$as(), guest)?;
                guest.write(at, &place.to_le_bytes())?;
                guest.write(at + 4, &count.to_le_bytes())
            }
        }
    )*};
}

lowered! {
    [] String, u8, as_bytes;
    [] &str, u8, as_bytes;
    [] &[u8], u8, as_ref;
    [T: Lower] Vec<T>, T, as_slice;
}

fn given<T: Lower>(list: &[T], guest: &mut Guest<'_>) -> Result<(u32, u32)> {
    let count = u32::try_from(list.len()).map_err(|_| mistake("a list is too long".to_owned()))?;
    let size =
        u32::try_from(list.len().saturating_mul(T::SIZE)).map_err(|_| mistake("a list is too long".to_owned()))?;
    let at = guest.allocate(T::ALIGN as u32, size)?;
    T::store_list(list, guest, at as usize)?;
    Ok((at, count))
}

impl<T: Type> Type for Option<T> {
    const SIZE: usize = variant(T::SIZE, T::ALIGN);
    const ALIGN: usize = T::ALIGN;
    const COUNT: usize = 1 + T::COUNT;

    fn flatten(types: &mut Vec<ValType>) {
        types.push(ValType::I32);
        T::flatten(types);
    }
}

impl<T: Lift> Lift for Option<T> {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        match flat.next().get_u32() {
            0 => {
                flat.skip(T::COUNT);
                Ok(None)
            }
            1 => T::lift(flat, source).map(Some),
            other => Err(no_case(other)),
        }
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        match u8::load(at, source)? {
            0 => Ok(None),
            1 => T::load(at + payload(T::ALIGN), source).map(Some),
            other => Err(no_case(other.into())),
        }
    }
}

impl<T: Lower> Lower for Option<T> {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        flat.push(ValRaw::u32(self.is_some().into()));
        match self {
            Some(value) => value.lower(guest, flat),
            None => {
                flat.zeros(T::COUNT);
                Ok(())
            }
        }
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        self.is_some().store(guest, at)?;
        self.as_ref().map_or(Ok(()), |value| value.store(guest, at + payload(T::ALIGN)))
    }
}

impl<T: Type, E: Type> Type for std::result::Result<T, E> {
    const SIZE: usize = variant(max(T::SIZE, E::SIZE), max(T::ALIGN, E::ALIGN));
    const ALIGN: usize = max(T::ALIGN, E::ALIGN);
    const COUNT: usize = 1 + max(T::COUNT, E::COUNT);

    fn flatten(types: &mut Vec<ValType>) {
        types.push(ValType::I32);
        if T::COUNT >= E::COUNT { T::flatten(types) } else { E::flatten(types) }
    }
}

/// What every hook answers, by a pointer.
impl<T: Lift, E: Lift> Lift for std::result::Result<T, E> {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        let rest = |flat: &mut Flat<'_>, taken| flat.skip(max(T::COUNT, E::COUNT) - taken);
        match flat.next().get_u32() {
            0 => T::lift(flat, source).map(Ok).inspect(|_| rest(flat, T::COUNT)),
            1 => E::lift(flat, source).map(Err).inspect(|_| rest(flat, E::COUNT)),
            other => Err(no_case(other)),
        }
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        let inside = at + payload(max(T::ALIGN, E::ALIGN));
        match u8::load(at, source)? {
            0 => T::load(inside, source).map(Ok),
            1 => E::load(inside, source).map(Err),
            other => Err(no_case(other.into())),
        }
    }
}

impl<T: Lower, E: Lower> Lower for std::result::Result<T, E> {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        flat.push(ValRaw::u32(self.is_err().into()));
        let all = max(T::COUNT, E::COUNT);
        match self {
            Ok(value) => {
                value.lower(guest, flat)?;
                flat.zeros(all - T::COUNT);
            }
            Err(value) => {
                value.lower(guest, flat)?;
                flat.zeros(all - E::COUNT);
            }
        }
        Ok(())
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        self.is_err().store(guest, at)?;
        let inside = at + payload(max(T::ALIGN, E::ALIGN));
        match self {
            Ok(value) => value.store(guest, inside),
            Err(value) => value.store(guest, inside),
        }
    }
}

/// Records, tuples and parameters: one value behind the other.
macro_rules! tuples {
    ($(($($name:ident $place:tt),+))*) => {$(
        impl<$($name: Type),+> Type for ($($name,)+) {
            const ALIGN: usize = { let mut align = 1; $(align = max(align, $name::ALIGN);)+ align };
            const SIZE: usize = {
                let mut size = 0;
                $(size = align_to(size, $name::ALIGN) + $name::SIZE;)+
                align_to(size, Self::ALIGN)
            };
            const COUNT: usize = 0 $(+ $name::COUNT)+;

            fn flatten(types: &mut Vec<ValType>) {
                $($name::flatten(types);)+
            }
        }

        impl<$($name: Lift),+> Lift for ($($name,)+) {
            fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
                Ok(($($name::lift(flat, source)?,)+))
            }

            #[allow(unused_assignments, reason = "the last field has none behind it")]
            fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
                let mut end = at;
                Ok(($({
                    let place = align_to(end, $name::ALIGN);
                    end = place + $name::SIZE;
                    $name::load(place, source)?
                },)+))
            }
        }

        impl<$($name: Lower),+> Lower for ($($name,)+) {
            fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
                $(self.$place.lower(guest, flat)?;)+
                Ok(())
            }

            #[allow(unused_assignments, reason = "the last field has none behind it")]
            fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
                let mut end = at;
                $(
                    let place = align_to(end, $name::ALIGN);
                    end = place + $name::SIZE;
                    self.$place.store(guest, place)?;
                )+
                Ok(())
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
}

pub fn no_case(number: u32) -> Error {
    mistake(format!("{number} is not a case of its type"))
}
