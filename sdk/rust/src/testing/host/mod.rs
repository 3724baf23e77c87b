//! The host functions, answered by the gateway of the running call. Names and signatures are those of the generated
//! bindings.

pub(crate) mod about;
pub(crate) mod beyond;
pub(crate) mod check;
pub(crate) mod handshake;
pub(crate) mod session;
pub(crate) mod stores;
pub(crate) mod topics;
pub(crate) mod upstream;

pub(crate) use about::{clock, config, log, metrics, random};
pub(crate) use beyond::{sessions, users};
pub(crate) use stores::{history, kv, presence, publication};
