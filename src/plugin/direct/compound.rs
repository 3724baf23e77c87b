//! Strings, lists, options, results and records in the canonical ABI.

use wasmtime::{Result, ValRaw, ValType};

use super::abi::{
    Flat, Flattened, Lift, Lower, Source, Type, align_to, aligned, max, mistake, no_case, payload, variant,
};
use super::guest::Guest;

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
