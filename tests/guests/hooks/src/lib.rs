//! Has the hooks that deliveries go through, and does what messages ask for, so that tests can see each of them.

use tidegate_sdk::history::Position;
use tidegate_sdk::subscription::{Change, Event};
use tidegate_sdk::{Message, Plugin, Publication, Result, Session, Verdict, metrics, topics, upstream, users};

#[derive(Default)]
struct Hooks;

impl Plugin for Hooks {
    fn opened(&self, session: Session) -> Result {
        Ok(session.set_user(session.query("user").as_deref())?)
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let text = message.as_text().unwrap_or_default();
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        match words[..] {
            ["join", topic] => {
                session.send("joining");
                session.subscribe(topic)?;
            }
            ["join", topic, epoch, offset] => {
                let since = Position { epoch: epoch.parse().unwrap_or(0), offset: offset.parse().unwrap_or(0) };
                session.subscribe(topic)?.with_recovery(since);
            }
            ["publish", topic, text] => {
                topics::publish(topic, text)?;
            }
            ["add", user, topic] => {
                users::subscribe(user, topic)?;
            }
            ["remove", user, topic] => {
                users::unsubscribe(user, topic)?;
            }
            ["tell", user, text] => {
                users::send(user, text)?;
            }
            ["ask", tag, text] => {
                session.send_if_refused("refused");
                upstream::request(session, "back", tag, text)?.header("x-word", "yes")?;
            }
            ["deaf"] => session.set_attribute("deaf", "yes")?,
            ["seen"] => session.send(session.attribute("seen").unwrap_or_default()),
            ["header", name] => session.send(session.header(name).unwrap_or_else(|| "none".to_owned())),
            ["peer"] => session.send(session.peer_address()),
            ["certificate"] => session.send(match session.certificate_facts() {
                Some(facts) => {
                    let same = session.client_certificate().is_some_and(|der| der.first() == Some(&0x30));
                    let spiffe = facts.spiffe_id.unwrap_or_default();
                    format!("{} {spiffe} {} {same}", facts.subject, facts.dns_names.join(" "))
                }
                None => "none".to_owned(),
            }),
            ["fail"] => return Err("asked to fail".into()),
            #[allow(clippy::panic, reason = "to be seen by tests")]
            ["panic"] => panic!("asked to panic"),
            ["close"] => session.close(4000, "asked to"),
            ["count", series] => metrics::count(series, 2),
            ["pass", _] => return Ok(Verdict::Next),
            _ => session.send("what?"),
        }
        Ok(Verdict::Stop)
    }

    /// Tells that messages came together; all but one verdict if it is asked for that.
    fn batch(&self, session: Session, messages: Vec<Message>) -> Result<Vec<Verdict>> {
        metrics::count("batches", 1);
        let short = messages.iter().any(|message| message.as_text() == Some("short"));
        let verdicts: Result<Vec<_>> = messages.into_iter().map(|message| self.inbound(session, message)).collect();
        Ok(verdicts?.split_off(usize::from(short)))
    }

    /// Puts the offset around what was published.
    fn broadcast(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        metrics::count("broadcasts", 1);
        match message.as_text() {
            Some("drop") => Ok(Verdict::Stop),
            Some("fail") => Err("this one cannot be framed".into()),
            text => {
                let offset = publication.position().map_or(0, |position| position.offset);
                Ok(Verdict::replace(format!("{topic} {offset} {}", text.unwrap_or_default())))
            }
        }
    }

    /// Counts what the client gets, in an attribute.
    fn outbound(&self, session: Session, publication: Option<Publication>, message: Message) -> Result<Verdict> {
        let text = message.as_text().unwrap_or_default();
        if text.contains("secret") {
            return Ok(Verdict::Stop);
        }
        let seen = session.attribute("seen").and_then(|seen| seen.parse::<u32>().ok()).unwrap_or(0) + 1;
        session.set_attribute("seen", &seen.to_string())?;
        let from = publication.map_or("direct".to_owned(), |publication| publication.topic());
        Ok(Verdict::replace(format!("<{from}> {text}")))
    }

    fn subscription(&self, session: Session, change: Change) -> Result {
        if session.attribute("deaf").is_some() {
            return Err("it does not want to know".into());
        }
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

    fn reply(&self, session: Session, tag: &str, reply: Result<upstream::Response, upstream::Failure>) -> Result {
        session.send(match reply {
            Ok(response) => format!("{tag}: {} {}", response.status, response.body.as_text().unwrap_or("(bytes)")),
            Err(failure) => format!("{tag}: {failure:?}"),
        });
        Ok(())
    }
}

tidegate_sdk::export!(Hooks: session, inbound, batch, broadcast, outbound, subscription, reply);
