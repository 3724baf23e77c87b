//! The plugin host: from files to calls. It knows sessions by their state and no socket at all.

mod budget;
mod cache;
mod call;
mod catalog;
mod chain;
pub mod describe;
mod effects;
mod encode;
mod engine;
mod event;
mod failure;
mod generation;
mod grants;
mod host;
mod inspect;
mod instance;
mod interface;
mod lane;
mod memory;
mod told;
mod watch;
mod wit;

pub use catalog::{Catalog, Status};
pub use call::{SubscriptionEvent, Verdict};
pub use chain::{Admission, Chain, RouteChain};
pub use effects::{Effect, Effects, Forward, Publish, Remote, Subscribe};
pub use engine::engine;
pub use event::{Event, Hook, Patience};
pub use failure::Failure;
pub use inspect::{Grant, Report, inspect};
pub use watch::Watch;
