//! Write plugins for the Tidegate gateway in Rust.
//!
//! A plugin decides who may come in, what a message means and where it goes. It is a type that implements [`Plugin`],
//! with the hooks that it has, and one line that names them, [`export!`]. A whole one:
//!
//! ```
//! use tidegate_sdk::{Message, Plugin, Result, Session, Verdict, config, topics};
//!
//! /// Everyone on the route hears what anyone says, up to a length.
//! struct Shout {
//!     longest: usize,
//! }
//!
//! impl Plugin for Shout {
//!     fn init() -> Result<Self> {
//!         let longest = config::get("longest").map_or(Ok(100), |value| value.parse())?;
//!         Ok(Self { longest })
//!     }
//!
//!     fn opened(&self, session: Session) -> Result {
//!         session.subscribe("square")?;
//!         session.send("welcome");
//!         Ok(())
//!     }
//!
//!     fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
//!         match message.as_text() {
//!             Some(text) if text.len() <= self.longest => {
//!                 topics::publish("square", text.to_uppercase())?;
//!             }
//!             Some(_) => session.send("too long"),
//!             None => session.close(1003, "text only"),
//!         }
//!         Ok(Verdict::Stop)
//!     }
//! }
//!
//! tidegate_sdk::export!(Shout: init, session, inbound);
//!
//! // In `#[cfg(test)]`, run by a plain `cargo test`:
//! # fn main() -> Result {
//! use tidegate_sdk::testing::Gateway;
//!
//! let gateway = Gateway::<Shout>::new().config(serde_json::json!({ "longest": 5 }));
//! let alice = gateway.connect().open()?;
//! let bob = gateway.connect().open()?;
//!
//! alice.says("hello")?;
//! alice.says("hello there")?;
//!
//! assert_eq!(alice.received(), ["welcome", "HELLO", "too long"]);
//! assert_eq!(bob.received(), ["welcome", "HELLO"]);
//! # Ok(())
//! # }
//! ```
//!
//! `Cargo.toml` says `crate-type = ["cdylib", "lib"]`, and
//! `cargo build --release --target wasm32-unknown-unknown` makes the file that goes into the plugin directory.
//!
//! # What happens when
//!
//! A hook sees one event, reads what it needs, and asks for *effects*: sends, publishes, subscriptions, attributes,
//! timers, a close. They are kept in a buffer and applied in the order of the calls, after every plugin of the route's
//! chain has answered well. When a hook returns an error, traps or overruns its budget, none of them is applied.
//!
//! There are three ways to say no. A *trap* answers a plugin's mistake, such as a session that is kept beyond its call.
//! A [`Refusal`] answers what a client's data can cause, so that the plugin can tell the client. What is refused when
//! effects are applied (the broker is away, say) takes the event's later effects with it;
//! [`Session::send_if_refused`] says what the client hears then.
//!
//! # Where state lives
//!
//! What concerns a session lives in its attributes ([`Session::set_attribute`]), what plugins share in [`kv`], what was
//! read from the configuration in the plugin's `self`. A plugin's file may be replaced at any moment, and there are
//! several instances of it, so nothing that an event has written may be kept in memory.
#![warn(missing_docs)]

#[doc(hidden)]
pub mod bindings;
pub mod clock;
pub mod config;
mod decision;
mod error;
mod export;
mod handshake;
pub mod history;
mod host;
#[cfg(feature = "http")]
pub mod http;
pub mod kv;
pub mod log;
mod message;
pub mod metrics;
mod plugin;
pub mod presence;
mod publication;
pub mod random;
mod session;
pub mod sessions;
pub mod subscription;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod topics;
#[doc(hidden)]
pub mod types;
pub mod upstream;
pub mod users;
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod wasm;

pub use decision::Decision;
pub use error::{Context, Error, Refusal, Result};
pub use export::{Exported, Hook};
pub use handshake::CertificateFacts;
pub use message::{Message, Verdict};
pub use plugin::{Close, Closer, Plugin};
pub use publication::Publication;
pub use session::{Keep, Session, Subscribe};

/// The README's plugin compiles.
#[cfg(all(doctest, not(target_arch = "wasm32")))]
#[doc = include_str!("../README.md")]
mod readme {}

/// The guide's plugins compile.
#[cfg(all(doctest, feature = "http", not(target_arch = "wasm32")))]
#[doc = include_str!("../../../docs/guides/http.md")]
mod guide {}
