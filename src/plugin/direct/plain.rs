//! Numbers, truth values, and nothing, in the canonical ABI.

use wasmtime::{Result, ValRaw, ValType};

use super::abi::{Flat, Flattened, Lift, Lower, Source, Type};
use super::guest::Guest;

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
