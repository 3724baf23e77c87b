//! The plugin host: from files to calls. It knows sessions by their state and no socket at all.

mod breaker;
mod budget;
mod cache;
mod call;
mod canary;
mod catalog;
mod chain;
mod code;
mod compile;
pub mod describe;
mod direct;
mod effects;
mod encode;
mod engine;
mod epoch;
mod event;
mod failure;
mod generation;
mod grants;
mod health;
mod host;
mod inspect;
mod instance;
mod interface;
mod lane;
mod loader;
mod memory;
mod outcome;
mod prepare;
mod recording;
mod rollout;
mod script;
mod seat;
mod second;
mod shadow;
mod status;
mod template;
mod told;
mod trial;
mod warm;
mod wit;

/// What `fuzzing` calls.
#[cfg(any(test, feature = "fuzzing"))]
pub mod inside {
    pub use super::call::{Answer, Call, Content, SubscriptionEvent, Verdict};
    pub use super::code::Code;
    pub use super::encode::{Encoded, Form, encoded};
    pub use super::failure::Why;
    pub use super::host::Context;
    pub use super::instance::Instance;
    pub use super::interface::WIT;
    pub use super::recording::Redactor;
    pub use super::template::Template;
}

pub use cache::Cache;
pub use call::{HttpAnswer, HttpRequest, SubscriptionEvent, Verdict};
pub use catalog::Catalog;
pub use chain::{Admission, Chain, RouteChain};
pub use compile::{COMMAND, compile_apart, compiler};
pub use effects::{Effect, Effects, Forward, Keep, Publish, Remote, Subscribe};
pub use engine::{Room, engine};
pub use event::{BATCH_MAX, Event, Hook, Patience};
pub use failure::Failure;
pub use inspect::{Grant, Instances, Report, inspect, instances};
pub use loader::{Loader, Role};
pub use outcome::Described;
pub use prepare::{Installed, Prepared};
pub use recording::{Head, Line, Made, RecordAsk, RecordRefused, Recorded, VERSION};
pub use script::done;
pub use second::{CanaryAsk, CanaryRefused};
pub use status::Status;
pub use trial::{Again, Build, Trial, Tried};
pub use warm::Warm;
