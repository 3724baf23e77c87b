//! Of `users` and `sessions`: effects on other sessions.

use super::check;
use crate::Refusal;
use crate::testing::call;
use crate::testing::effect::{Effect, What, Whom};

fn reach(whom: Whom, what: What) -> Result<u32, Refusal> {
    call::with(|call| {
        let grants = call.state().grants.clone();
        let (granted, id) = match &whom {
            Whom::User(user) => (grants.users, user),
            Whom::Session(session) => (grants.sessions, session),
        };
        check::id(id)?;
        check::granted(granted)?;
        match &what {
            What::Subscribe(topic) | What::Unsubscribe(topic) => check::topic(topic)?,
            What::Disconnect(code, _) => check::close_code(*code),
            What::Send(_) => {}
        }
        Ok(call.push(Effect::Reach(whom, what)))
    })
}

macro_rules! reach {
    ($(#[$doc:meta])* $module:ident, $whom:ident) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use super::{What, Whom, reach};
            use crate::{Message, Refusal};

            pub(crate) fn send(whom: &str, message: &Message) -> Result<u32, Refusal> {
                reach(Whom::$whom(whom.to_owned()), What::Send(message.clone()))
            }

            pub(crate) fn subscribe(whom: &str, topic: &str) -> Result<u32, Refusal> {
                reach(Whom::$whom(whom.to_owned()), What::Subscribe(topic.to_owned()))
            }

            pub(crate) fn unsubscribe(whom: &str, topic: &str) -> Result<u32, Refusal> {
                reach(Whom::$whom(whom.to_owned()), What::Unsubscribe(topic.to_owned()))
            }

            pub(crate) fn disconnect(whom: &str, code: u16, reason: &str) -> Result<u32, Refusal> {
                reach(Whom::$whom(whom.to_owned()), What::Disconnect(code, reason.to_owned()))
            }
        }
    };
}

reach!(
    /// Every session of a user.
    users,
    User
);
reach!(
    /// One session.
    sessions,
    Session
);
