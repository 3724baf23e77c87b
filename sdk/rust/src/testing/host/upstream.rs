//! Of `upstream`: messages for the gateway's backends.

use super::check;
use crate::testing::call::{self, Call};
use crate::testing::effect::{Effect, Forward};
use crate::testing::state::fits;
use crate::{Message, Refusal};

/// Of a tag, in bytes.
const TAG: usize = 255;
/// Of the headers of a message: how many, and bytes in all.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 8 * 1024;

pub(crate) fn forward(session: u64, upstream: &str, message: &Message) -> Result<u32, Refusal> {
    push(session, upstream, None, message)
}

pub(crate) fn request(session: u64, upstream: &str, tag: &str, message: &Message) -> Result<u32, Refusal> {
    if tag.len() > TAG {
        return Err(Refusal::TooLarge);
    }
    push(session, upstream, Some(tag), message)
}

pub(crate) fn with_header(effect: u32, name: &str, value: &str) -> Result<(), Refusal> {
    check::header(name, value)?;
    call::with(|call| {
        let headers = &mut forward_of(call, effect).headers;
        if headers.len() >= HEADERS {
            return Err(Refusal::TooMany);
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes + name.len() + value.len() > HEADER_BYTES {
            return Err(Refusal::TooLarge);
        }
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
        Ok(())
    })
}

pub(crate) fn with_timeout(effect: u32, after: u64) {
    call::with(|call| {
        let forward = forward_of(call, effect);
        assert!(forward.tag.is_some(), "trap: `with-timeout` belongs to a request, not to a forward");
        forward.timeout = Some(after);
    });
}

fn push(session: u64, upstream: &str, tag: Option<&str>, message: &Message) -> Result<u32, Refusal> {
    call::with(|call| {
        call.session_id(session);
        check::granted(call.state().grants.upstreams.iter().any(|pattern| fits(pattern, upstream)))?;
        if !call.state().upstreams.contains_key(upstream) {
            return Err(Refusal::Unsupported);
        }
        Ok(call.push(Effect::Forward(Forward {
            upstream: upstream.to_owned(),
            tag: tag.map(str::to_owned),
            message: message.clone(),
            headers: Vec::new(),
            timeout: None,
        })))
    })
}

fn forward_of(call: &mut Call, effect: u32) -> &mut Forward {
    match call.effect(effect) {
        Effect::Forward(forward) => forward,
        other => panic!("trap: this option belongs to a forward or a request, not to {other:?}"),
    }
}
