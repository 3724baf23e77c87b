//! Rooms to talk in. Teaches what most plugins need: topics with history and presence, messages to a user, errors that a
//! client understands.
//!
//! The room is the route's parameter `room`; who the client is was decided by an earlier plugin of the chain. Grants:
//! `publish` and `subscribe` for `room:*`, and `users`; those topics need `presence = true`, and a history if those who
//! join are to read the last messages. The route claims them (`topics`), so that joins and leaves are told.

mod protocol;
#[cfg(test)]
mod tests;

use protocol::{Ask, Kind, Tell, Trouble, frame, is_message};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_sdk::{Context, Message, Plugin, Refusal, Result, Session, Verdict};
use tidegate_sdk::{clock, config, history, presence, random, topics, users};

/// What stands under `[plugin.chat.config]`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chat {
    /// The longest text, in characters.
    max_text: usize,
    /// How many of the last messages those who join may read.
    history: u32,
}

impl Default for Chat {
    fn default() -> Self {
        Self { max_text: 4000, history: 50 }
    }
}

impl Plugin for Chat {
    fn init() -> Result<Self> {
        config::parse()
    }

    fn opened(&self, session: Session) -> Result {
        let Some(user) = session.user() else {
            session.close(1008, "sign in first");
            return Ok(());
        };
        let room = Room::of(session)?;
        let (messages, position) = match self.last_messages(&room) {
            Ok((messages, position)) => (messages, Some(position)),
            Err(Refusal::Unsupported) => (Vec::new(), None),
            Err(refusal) => return room.turn_away(session, refusal).context("the history"),
        };
        let mut members = match room.members() {
            Ok(members) => members,
            Err(refusal) => return room.turn_away(session, refusal).context("the presence"),
        };
        if let Err(place) = members.binary_search(&user) {
            members.insert(place, user.clone());
        }

        session.send(frame(&Tell::Welcome { user: &user, room: &room.name, members: &members, history: &messages })?);
        let mut subscribe = session.subscribe(&room.topic).context("the room")?;
        if let Some(position) = position {
            // From where the history was read, so that nothing falls between the two.
            subscribe = subscribe.with_recovery(position);
        }
        subscribe.with_presence("").context(format!("the presence of {}", room.topic))?;
        Ok(())
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let Some(user) = session.user() else {
            return Ok(Verdict::Stop);
        };
        let room = Room::of(session)?;
        let answered = match Ask::read(&message) {
            Ok(ask) => self.answer(session, &user, &room, ask)?,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = answered {
            session.send(trouble.frame()?);
        }
        Ok(Verdict::Stop)
    }

    fn presence(&self, change: presence::Change) -> Result {
        let Some(user) = change.user.as_deref().filter(|_| change.topic.starts_with(Room::PREFIX)) else {
            return Ok(());
        };
        // A user with several tabs comes with the first and leaves with the last.
        let tell = match &change {
            change if change.is_first_of_user() => Tell::Joined { user },
            change if change.is_last_of_user() => Tell::Left { user },
            _ => return Ok(()),
        };
        topics::publish(&change.topic, frame(&tell)?)?.exclude_id(&change.session_id).no_history();
        Ok(())
    }
}

// Tests run on the hooks that are named here, whatever the feature says.
#[cfg(not(all(feature = "library", target_arch = "wasm32")))]
tidegate_sdk::export!(Chat: init, session, inbound, presence);

impl Chat {
    /// Do what a client asks for. The inner error is told to the client, the outer one to the operator.
    fn answer(&self, session: Session, user: &str, room: &Room, ask: Ask) -> Result<Result<(), Trouble>> {
        let unavailable = Trouble::Unavailable.frame()?;
        match ask.kind {
            Kind::Say => {
                let text = match ask.text(self.max_text) {
                    Ok(text) => text,
                    Err(trouble) => return Ok(Err(trouble)),
                };
                let at = clock::now();
                let id = format!("{at:x}-{:016x}", random::number());
                let message = Tell::Message { id: &id, user, room: &room.name, text, at };
                session.send_if_refused(unavailable);
                match topics::publish(&room.topic, frame(&message)?) {
                    Ok(_) => {}
                    Err(Refusal::TooLarge) => return Ok(Err(Trouble::TooLong(self.max_text))),
                    Err(refusal) => return Err(refusal).context("say"),
                }
            }
            Kind::Direct => {
                let (to, text) = match (ask.to(), ask.text(self.max_text)) {
                    (Ok(to), Ok(text)) => (to, text),
                    (Err(trouble), _) | (_, Err(trouble)) => return Ok(Err(trouble)),
                };
                match presence::has_user(&room.topic, to) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Err(Trouble::UnknownUser)),
                    Err(Refusal::Unavailable) => return Ok(Err(Trouble::Unavailable)),
                    Err(refusal) => return Err(refusal).context("direct"),
                }
                let at = clock::now();
                session.send_if_refused(unavailable);
                users::send(to, frame(&Tell::Direct { user, to: None, text, at })?).context("direct")?;
                if to != user {
                    // The sender's other tabs show it too, and need to know whom it went to.
                    users::send(user, frame(&Tell::Direct { user, to: Some(to), text, at })?).context("direct")?;
                }
            }
            Kind::Typing => {
                let typing = frame(&Tell::Typing { user })?;
                topics::publish(&room.topic, typing).context("typing")?.exclude(session).no_history();
                session.send_if_refused(unavailable);
            }
            Kind::Who => match room.members() {
                Ok(members) => session.send(frame(&Tell::Members { members: &members })?),
                Err(Refusal::Unavailable) => return Ok(Err(Trouble::Unavailable)),
                Err(refusal) => return Err(refusal).context("who"),
            },
            Kind::Unknown => return Ok(Err(Trouble::UnknownType)),
        }
        Ok(Ok(()))
    }

    /// The last messages of a room as they were published, oldest first, and where its history stood.
    fn last_messages(&self, room: &Room) -> Result<(Vec<Box<RawValue>>, history::Position), Refusal> {
        let page = history::last(&room.topic, self.history)?;
        let messages = page.publications.into_iter().filter_map(|publication| match publication.message() {
            Message::Text(text) if is_message(&text) => RawValue::from_string(text).ok(),
            _ => None,
        });
        Ok((messages.collect(), page.position))
    }
}

/// A room, and the topic behind it.
struct Room {
    name: String,
    topic: String,
}

impl Room {
    const PREFIX: &str = "room:";

    fn of(session: Session) -> Result<Self> {
        let name = session.param("room").context("the route's path has no `{room}`, which names the room")?;
        let topic = format!("{}{name}", Self::PREFIX);
        Ok(Self { name, topic })
    }

    /// The users who are in it, each once, sorted.
    fn members(&self) -> Result<Vec<String>, Refusal> {
        let members = presence::members(&self.topic, 1000)?;
        let mut users: Vec<String> = members.into_iter().filter_map(|member| member.user).collect();
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    /// Nobody can come in: the client is told where that is up to it or to time, the operator otherwise.
    fn turn_away(&self, session: Session, refusal: Refusal) -> Result {
        match refusal {
            Refusal::Invalid => session.close(1008, "a room's name is too long or has control characters in it"),
            Refusal::Unavailable => session.close(1013, "the room cannot be read now"),
            refusal => return Err(refusal).context(&self.topic),
        }
        Ok(())
    }
}
