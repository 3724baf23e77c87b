//! The plugin host: from files to calls. It knows sessions by their state and no socket at all.

mod breaker;
mod budget;
mod cache;
mod call;
mod catalog;
mod chain;
mod effects;
mod encode;
mod engine;
mod event;
mod failure;
mod generation;
mod grants;
mod health;
mod host;
mod instance;
mod lane;
mod loader;
mod memory;
mod prepare;
mod rollout;
mod seat;
mod status;
mod wit;

pub use cache::Cache;
pub use call::{SubscriptionEvent, Verdict};
pub use catalog::Catalog;
pub use chain::{Admission, Chain, RouteChain};
pub use effects::{Effect, Effects, Forward, Publish, Remote, Subscribe};
pub use engine::engine;
pub use event::{Event, Hook, Patience};
pub use failure::Failure;
pub use loader::Loader;
pub use prepare::{Installed, Prepared};
pub use status::Status;
