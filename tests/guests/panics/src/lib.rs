//! Panics at each message. It is there to see what of that reaches the log.

#![allow(clippy::panic, reason = "what it is for")]

use tidegate_sdk::{Message, Plugin, Result, Session, Verdict};

#[derive(Default)]
struct Panics;

impl Plugin for Panics {
    fn inbound(&self, _session: Session, message: Message) -> Result<Verdict> {
        stumble(message.as_text().unwrap_or_default())
    }
}

#[inline(never)]
fn stumble(over: &str) -> Result<Verdict> {
    panic!("stumbled over {over:?}")
}

tidegate_sdk::export!(Panics: inbound);
