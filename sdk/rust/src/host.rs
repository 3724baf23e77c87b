//! The one seam to the host: the gateway's functions in a plugin, the test double's everywhere else.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::imports::tidegate::plugin::*;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::host::*;

/// The records and enums of the host functions, the same on both sides of the seam.
pub(crate) mod data {
    use crate::bindings::imports::tidegate::plugin as generated;

    pub(crate) use generated::handshake::Certificate;
    pub(crate) use generated::log::Level;
    pub(crate) use generated::session::Keep;
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) use generated::{
        history::Page,
        presence::{Counts, Member},
    };
}

/// A time span as the interface takes it. More milliseconds than fit are as good as the most that do.
pub(crate) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A time to live: none is for ever, which the interface writes as 0. Any other lasts at least a millisecond.
pub(crate) fn ttl(ttl: Option<std::time::Duration>) -> u64 {
    ttl.map_or(0, |span| millis(span).max(1))
}
