//! `sessions`: one session anywhere, by its id.

use wasmtime::Result;

use super::wit::types::{Message, Refusal};
use super::{State, close_of, topic_name, wit};
use crate::message::SessionId;
use crate::plugin::effects::{Effect, Remote};

impl State {
    fn session_effect(&mut self, id: &str, remote: Remote) -> Result<Result<u32, Refusal>> {
        let Some(session) = SessionId::parse(id) else {
            return Ok(Err(Refusal::Invalid));
        };
        if self.granted_flag(self.context.granted.sessions, "sessions", id).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        self.act_remotely(|remote| Effect::ToSession(session, remote), remote)
    }
}

impl wit::sessions::Host for State {
    fn send(&mut self, id: String, message: Message) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        self.session_effect(&id, Remote::Send(message.into()))
    }

    fn subscribe(&mut self, id: String, topic: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        match topic_name(&topic) {
            Ok(topic) => self.session_effect(&id, Remote::Subscribe(topic)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn unsubscribe(&mut self, id: String, topic: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        match topic_name(&topic) {
            Ok(topic) => self.session_effect(&id, Remote::Unsubscribe(topic)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn disconnect(&mut self, id: String, code: u16, reason: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        let close = close_of(code, &reason)?;
        self.session_effect(&id, Remote::Close(close))
    }
}
