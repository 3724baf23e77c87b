//! `upstream`: messages for the gateway's backends.

use serde_json::json;
use wasmtime::Result;

use super::wit::types::{Message, Refusal};
use super::{State, mistake, payload_len, wit};
use crate::plugin::effects::{Effect, Forward};
use crate::plugin::event::Hook;

/// Bytes of a request's tag.
const TAG: usize = 255;
/// Headers that go with a message, and their bytes in all.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 8 << 10;

impl State {
    fn forward_to(
        &mut self,
        session: u64,
        upstream: String,
        message: Message,
        tag: Option<String>,
    ) -> Result<Result<u32, Refusal>> {
        self.session(session)?;
        if matches!(self.hook, Hook::Authenticate) {
            return Err(mistake("`authenticate` has no session yet that an upstream could be told of".to_owned()));
        }
        let granted = self.context.granted.upstreams.iter().any(|known| **known == *upstream);
        if self.granted_flag(granted, "upstreams", &upstream).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        let with = || json!({ "upstream": upstream });
        let is_there = self.asked("upstream", with, None, |node| Ok(node.upstreams.has(&upstream)));
        match is_there {
            Ok(true) => {}
            Ok(false) => return Ok(Err(Refusal::Unsupported)),
            Err(refusal) => return Ok(Err(refusal)),
        }
        if tag.as_ref().is_some_and(|tag| tag.len() > TAG) {
            return Ok(Err(Refusal::TooLarge));
        }
        let reply_to = tag.map(|tag| (self.context.name.clone(), tag.into()));
        let bytes = payload_len(&message);
        let forward = Forward {
            upstream: upstream.into(),
            message: message.into(),
            reply_to,
            headers: Vec::new(),
            timeout: None,
        };
        self.act(Effect::Forward(Box::new(forward)), bytes).map(Ok)
    }
}

impl wit::upstream::Host for State {
    fn forward(&mut self, session: u64, upstream: String, message: Message) -> Result<Result<u32, Refusal>> {
        self.forward_to(session, upstream, message, None)
    }

    fn request(
        &mut self,
        session: u64,
        upstream: String,
        tag: String,
        message: Message,
    ) -> Result<Result<u32, Refusal>> {
        self.forward_to(session, upstream, message, Some(tag))
    }

    fn with_header(&mut self, effect: u32, name: String, value: String) -> Result<Result<(), Refusal>> {
        self.charge(0, name.len() + value.len())?;
        let headers = &mut self.forward_effect(effect)?.headers;
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() >= HEADERS {
            return Ok(Err(Refusal::TooMany));
        }
        if bytes + name.len() + value.len() > HEADER_BYTES {
            return Ok(Err(Refusal::TooLarge));
        }
        let well_formed =
            hyper::header::HeaderName::try_from(&name).is_ok() && hyper::header::HeaderValue::try_from(&value).is_ok();
        if !well_formed || is_reserved(&name) {
            return Ok(Err(Refusal::Invalid));
        }
        headers.push((name.into(), value.into()));
        Ok(Ok(()))
    }

    fn with_timeout(&mut self, effect: u32, after: u64) -> Result<()> {
        let forward = self.forward_effect(effect)?;
        if forward.reply_to.is_none() {
            return Err(mistake(format!("effect {effect} is not a `request`")));
        }
        forward.timeout = Some(after);
        Ok(())
    }
}

/// Headers that frame the request, or name its receiver.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 8] =
        ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];
    RESERVED.contains(&&*name.to_ascii_lowercase())
}
