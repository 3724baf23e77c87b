//! The interface's own types in the canonical ABI: what wasmtime's bindgen has generated, laid out.

use wasmtime::{Result, ValRaw, ValType};

use super::abi::{Flat, Flattened, Lift, Lower, Source, Type, no_case, payload, variant};
use super::guest::Guest;
use crate::plugin::wit::BorrowedMessage;
use crate::plugin::wit::exports::tidegate::plugin as hooks;
use crate::plugin::wit::tidegate::plugin as wit;
use crate::plugin::wit::tidegate::plugin::types::{Message, Position, Refusal, Verdict};

use hooks::on_authenticate::Decision;

macro_rules! enums {
    ($($name:path: $($case:ident),+;)*) => {$(
        impl Type for $name {
            const SIZE: usize = 1;
            const ALIGN: usize = 1;
            const COUNT: usize = 1;

            fn flatten(types: &mut Vec<ValType>) {
                types.push(ValType::I32);
            }
        }

        impl Lift for $name {
            fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
                let number = u32::lift(flat, source)?;
                [$(Self::$case),+].get(number as usize).copied().ok_or_else(|| no_case(number))
            }

            fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
                let number = u8::load(at, source)?;
                [$(Self::$case),+].get(usize::from(number)).copied().ok_or_else(|| no_case(number.into()))
            }
        }

        impl Lower for $name {
            fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
                (*self as u8).lower(guest, flat)
            }

            fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
                (*self as u8).store(guest, at)
            }
        }
    )*};
}

enums! {
    Refusal: Invalid, Denied, TooLarge, TooMany, Unsupported, Unavailable;
    wit::session::Keep: Newest, Oldest;
    wit::log::Level: Trace, Debug, Info, Warn, Error;
    hooks::on_session::Closer: Client, Plugin, Gateway, Network;
    hooks::on_subscription::Event: Subscribed, Recovered, Gap, Added, Removed;
    hooks::on_presence::Event: Joined, Left;
    hooks::on_reply::Failure: Unavailable, Timeout, TooLarge, Broken;
}

/// `record position { epoch: u64, offset: u64 }`
type Epoch = (u64, u64);

impl Type for Position {
    const SIZE: usize = Epoch::SIZE;
    const ALIGN: usize = Epoch::ALIGN;
    const COUNT: usize = Epoch::COUNT;

    fn flatten(types: &mut Vec<ValType>) {
        Epoch::flatten(types);
    }
}

impl Lift for Position {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        Epoch::lift(flat, source).map(|(epoch, offset)| Self { epoch, offset })
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        Epoch::load(at, source).map(|(epoch, offset)| Self { epoch, offset })
    }
}

impl Lower for Position {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        (self.epoch, self.offset).lower(guest, flat)
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        (self.epoch, self.offset).store(guest, at)
    }
}

/// `variant message { text(string), binary(list<u8>) }`
macro_rules! message {
    ($($name:ty),*) => {$(
        impl Type for $name {
            const SIZE: usize = variant(String::SIZE, String::ALIGN);
            const ALIGN: usize = String::ALIGN;
            const COUNT: usize = 1 + String::COUNT;

            fn flatten(types: &mut Vec<ValType>) {
                types.push(ValType::I32);
                String::flatten(types);
            }
        }
    )*};
}

message!(Message, BorrowedMessage<'_>);

impl Lift for Message {
    fn lift(flat: &mut Flat<'_>, source: &mut Source<'_>) -> Result<Self> {
        match u32::lift(flat, source)? {
            0 => String::lift(flat, source).map(Self::Text),
            1 => Vec::lift(flat, source).map(Self::Binary),
            other => Err(no_case(other)),
        }
    }

    fn load(at: usize, source: &mut Source<'_>) -> Result<Self> {
        let inside = at + payload(String::ALIGN);
        match u8::load(at, source)? {
            0 => String::load(inside, source).map(Self::Text),
            1 => Vec::load(inside, source).map(Self::Binary),
            other => Err(no_case(other.into())),
        }
    }
}

impl Lower for Message {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        borrowed(self).lower(guest, flat)
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        borrowed(self).store(guest, at)
    }
}

fn borrowed(message: &Message) -> BorrowedMessage<'_> {
    match message {
        Message::Text(text) => BorrowedMessage::Text(text),
        Message::Binary(bytes) => BorrowedMessage::Binary(bytes),
    }
}

impl Lower for BorrowedMessage<'_> {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        flat.push(ValRaw::u32(matches!(self, Self::Binary(_)).into()));
        match self {
            Self::Text(text) => text.lower(guest, flat),
            Self::Binary(bytes) => bytes.lower(guest, flat),
        }
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        matches!(self, Self::Binary(_)).store(guest, at)?;
        let inside = at + payload(String::ALIGN);
        match self {
            Self::Text(text) => text.store(guest, inside),
            Self::Binary(bytes) => bytes.store(guest, inside),
        }
    }
}

/// What a hook answers is a pointer to it, so it is loaded and never flattened.
macro_rules! answers {
    ($($name:ty, $payload:ty, $source:ident, $at:ident { $($case:pat => $value:expr),+ };)*) => {$(
        impl Type for $name {
            const SIZE: usize = variant(<$payload>::SIZE, <$payload>::ALIGN);
            const ALIGN: usize = <$payload>::ALIGN;
            const COUNT: usize = 1 + <$payload>::COUNT;

            fn flatten(types: &mut Vec<ValType>) {
                types.push(ValType::I32);
                <$payload>::flatten(types);
            }
        }

        impl Lift for $name {
            fn lift(_: &mut Flat<'_>, _: &mut Source<'_>) -> Result<Self> {
                Err(super::abi::mistake("an answer is not flattened".to_owned()))
            }

            fn load(at: usize, $source: &mut Source<'_>) -> Result<Self> {
                let $at = at + payload(<$payload>::ALIGN);
                Ok(match u8::load(at, $source)? {
                    $($case => $value,)+
                    other => return Err(no_case(other.into())),
                })
            }
        }
    )*};
}

answers! {
    Verdict, Message, source, inside {
        0 => Self::Next,
        1 => Self::Replace(Message::load(inside, source)?),
        2 => Self::Stop
    };
    Decision, Option<String>, source, inside {
        0 => Self::Refuse(u16::load(inside, source)?),
        1 => Self::Pass,
        2 => Self::Admit(Option::load(inside, source)?)
    };
}

/// `record response { status: u16, body: message }`
impl Type for hooks::on_reply::Response {
    const SIZE: usize = <(u16, Message)>::SIZE;
    const ALIGN: usize = <(u16, Message)>::ALIGN;
    const COUNT: usize = <(u16, Message)>::COUNT;

    fn flatten(types: &mut Vec<ValType>) {
        <(u16, Message)>::flatten(types);
    }
}

impl Lower for hooks::on_reply::Response {
    fn lower(&self, guest: &mut Guest<'_>, flat: &mut Flattened) -> Result<()> {
        (self.status, borrowed(&self.body)).lower(guest, flat)
    }

    fn store(&self, guest: &mut Guest<'_>, at: usize) -> Result<()> {
        (self.status, borrowed(&self.body)).store(guest, at)
    }
}
