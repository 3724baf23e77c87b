//! A gateway for unit tests: plugins are tested by a plain `cargo test`, with no wasm and no network.
//!
//! Everywhere but on `wasm32` the SDK's functions talk to a [`Gateway`] of this module. It calls the hooks that
//! [`export!`](crate::export!) names and treats them as the real one does: effects are applied when a hook has answered
//! well and not at all when it fails, publications reach subscribers, topics keep history and presence, handles are
//! good for one call. What would trap there panics here, with a sentence that says why. Time moves only when
//! [`Gateway::advance`] moves it.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_sdk::{Message, Plugin, Result, Session, Verdict, testing::Gateway};
//!
//! /// Says good night to whoever has been silent for a minute.
//! #[derive(Default)]
//! struct Night;
//!
//! impl Plugin for Night {
//!     fn inbound(&self, session: Session, _: Message) -> Result<Verdict> {
//!         session.set_timer("silence", Duration::from_secs(60))?;
//!         Ok(Verdict::Stop)
//!     }
//!
//!     fn timer(&self, session: Session, _: &str) -> Result {
//!         session.send("good night");
//!         session.close(1000, "silence");
//!         Ok(())
//!     }
//! }
//!
//! tidegate_sdk::export!(Night: inbound, timer);
//!
//! # fn main() -> Result {
//! let gateway = Gateway::<Night>::new();
//! let alice = gateway.connect().user("alice").open()?;
//!
//! alice.says("I am here")?;
//! gateway.advance(Duration::from_secs(59));
//! assert_eq!(alice.received(), Vec::<Message>::new());
//!
//! gateway.advance(Duration::from_secs(1));
//! assert_eq!(alice.received(), ["good night"]);
//! assert_eq!(alice.closed().map(|close| close.code), Some(1000));
//! # Ok(())
//! # }
//! ```
//!
//! It is one node with one plugin, on as many routes as clients name, each of which has `outbound = true`. What differs
//! from the real one: effects of one event are applied at once and what follows from them (presence, closes) right
//! after, and sizes of messages and numbers of effects are not limited. Upstreams are played by the test, with
//! [`Gateway::forwarded`] and [`Gateway::reply`]; what passes `inbound` goes to none of them. A series
//! of metrics that is not well-formed, which the gateway does not count, panics here.
#![allow(clippy::panic, reason = "what traps in the gateway panics in a test")]

mod apply;
mod call;
mod client;
mod connect;
mod delivery;
mod effect;
mod events;
mod gateway;
pub(crate) mod host;
mod state;

pub use client::Client;
pub use connect::{Answer, Connect};
pub use gateway::Gateway;
pub use state::{Failure, Forwarded, Grants, Line, Published, Topic};
