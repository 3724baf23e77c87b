//! Publishes and subscribes as messages ask for, and tells what became of it, so that tests can account for every message.

use tidegate_sdk::history::Position;
use tidegate_sdk::subscription::{Change, Event};
use tidegate_sdk::{Keep, Message, Plugin, Publication, Result, Session, Verdict, presence, sessions, topics, users};

#[derive(Default)]
struct Relay;

impl Plugin for Relay {
    fn opened(&self, session: Session) -> Result {
        if let Some(user) = session.query("user") {
            session.set_user(Some(&user))?;
        }
        if let Some(limit) = session.query("limit") {
            let (sessions, keep) = limit.split_once('-').unwrap_or((&limit, ""));
            let keep = if keep == "oldest" { Keep::Oldest } else { Keep::Newest };
            session.send_if_refused("no");
            session.limit_sessions(sessions.parse().unwrap_or(0), keep)?;
        }
        session.send(session.id());
        Ok(())
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let text = message.as_text().unwrap_or_default();
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        match words[..] {
            ["join", topic] => {
                session.send_if_refused(format!("no {text}"));
                session.subscribe(topic)?;
            }
            ["join", topic, epoch, offset] => {
                session.send_if_refused(format!("no {text}"));
                let since = Position { epoch: epoch.parse().unwrap_or(0), offset: offset.parse().unwrap_or(0) };
                session.subscribe(topic)?.with_recovery(since);
            }
            ["here", topic, info] => {
                session.send_if_refused(format!("no {text}"));
                session.subscribe(topic)?.with_presence(info)?;
            }
            ["who", topic] => match (presence::count(topic), presence::members(topic, 100)) {
                (Ok(counts), Ok(members)) => {
                    let mut who: Vec<_> = members.iter().map(|one| one.user.as_deref().unwrap_or("?")).collect();
                    who.sort_unstable();
                    session.send(format!("{} {} {}", counts.sessions, counts.users, who.join(",")));
                }
                (counts, _) => session.send(format!("nobody knows: {}", counts.is_err())),
            },
            ["leave", topic] => {
                session.unsubscribe(topic);
                session.send("left");
            }
            // Acknowledged when it is published, and only then.
            ["say", topic, text] => {
                session.send_if_refused(format!("no {text}"));
                topics::publish(topic, text)?;
                session.send(format!("ok {text}"));
            }
            ["once", topic, key, text] => {
                session.send_if_refused(format!("no {text}"));
                topics::publish(topic, text)?.idempotency_key(key)?;
                session.send(format!("ok {text}"));
            }
            ["keyed", topic, key, text] => {
                session.send_if_refused(format!("no {text}"));
                topics::publish(topic, text)?.key(key)?;
                session.send(format!("ok {text}"));
            }
            ["whisper", topic, text] => {
                session.send_if_refused(format!("no {text}"));
                topics::publish(topic, text)?.no_history();
                session.send(format!("ok {text}"));
            }
            ["tell", user, text] => {
                session.send_if_refused(format!("no {text}"));
                users::send(user, text)?;
                session.send(format!("ok {text}"));
            }
            ["add", user, topic] => users::subscribe(user, topic)?,
            ["remove", user, topic] => users::unsubscribe(user, topic)?,
            ["kick", user] => users::disconnect(user, 4003, "kicked")?,
            ["to", id, text] => {
                session.send_if_refused(format!("no {text}"));
                sessions::send(id, text)?;
                session.send(format!("ok {text}"));
            }
            ["end", id] => sessions::disconnect(id, 4004, "ended")?,
            _ => session.send("what?"),
        }
        Ok(Verdict::Stop)
    }

    /// Puts the offset before what was published.
    fn broadcast(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        let offset = publication.position().map_or(0, |position| position.offset);
        Ok(Verdict::replace(format!("{topic} {offset} {}", message.as_text().unwrap_or_default())))
    }

    /// Publishes who came and left on the topic `log:seen`.
    fn presence(&self, change: presence::Change) -> Result {
        let sign = if change.event == presence::Event::Joined { '+' } else { '-' };
        let user = change.user.as_deref().unwrap_or("?");
        topics::publish("log:seen", format!("{sign}{user}-{}-{}", change.info, change.sessions_of_user))?;
        Ok(())
    }

    fn subscription(&self, session: Session, change: Change) -> Result {
        let what = match change.event {
            Event::Subscribed => "subscribed",
            Event::Recovered => "recovered",
            Event::Gap => "gap",
            Event::Added => "added",
            Event::Removed => "removed",
        };
        let at = change.position.map_or("-".to_owned(), |position| format!("{} {}", position.epoch, position.offset));
        session.send(format!("{what} {} {at}", change.topic));
        Ok(())
    }
}

tidegate_sdk::export!(Relay: session, inbound, broadcast, subscription, presence);
