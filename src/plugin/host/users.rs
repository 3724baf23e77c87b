//! `users`: every session of a user.

use std::sync::Arc;

use wasmtime::Result;

use super::wit::types::{Message, Refusal};
use super::{State, close_of, topic_name, wit};
use crate::plugin::effects::{Effect, Remote};
use crate::state::USER_MAX;

impl State {
    fn user_effect(&mut self, user: &str, remote: Remote) -> Result<Result<u32, Refusal>> {
        if !(1..=USER_MAX).contains(&user.len()) {
            return Ok(Err(Refusal::Invalid));
        }
        if self.granted_flag(self.context.granted.users, "users", user).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        let user: Arc<str> = user.into();
        self.act_remotely(|remote| Effect::ToUser(user, remote), remote)
    }
}

impl wit::users::Host for State {
    fn send(&mut self, user: String, message: Message) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        self.user_effect(&user, Remote::Send(message.into()))
    }

    fn subscribe(&mut self, user: String, topic: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        match topic_name(&topic) {
            Ok(topic) => self.user_effect(&user, Remote::Subscribe(topic)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn unsubscribe(&mut self, user: String, topic: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        match topic_name(&topic) {
            Ok(topic) => self.user_effect(&user, Remote::Unsubscribe(topic)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn disconnect(&mut self, user: String, code: u16, reason: String) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        let close = close_of(code, &reason)?;
        self.user_effect(&user, Remote::Close(close))
    }
}
