//! A plugin that does what it is told.

use std::cell::Cell;
use std::time::Duration;

use tidegate_sdk::{Close, Context, Decision, Keep, Message, Plugin, Publication, Result, Session, Verdict};
use tidegate_sdk::{clock, config, history, kv, log, presence, random, sessions, topics, users};

/// Does what it is told: each message is one word of this little language.
pub(crate) struct Puppet {
    greeting: String,
}

thread_local! {
    static KEPT: Cell<Option<Session>> = const { Cell::new(None) };
}

impl Plugin for Puppet {
    fn init() -> Result<Self> {
        Ok(Self { greeting: config::get("greeting").context("config `greeting`")? })
    }

    fn authenticate(&self, session: Session) -> Result<Decision> {
        session.add_header("x-greeting", &self.greeting)?;
        session.set_body("text/plain", "no");
        session.set_attribute("role", "guest")?;
        match session.query("as").as_deref() {
            Some("error") => Err("broken".into()),
            Some("refuse") => Ok(Decision::Refuse(418)),
            Some("empty") => Ok(Decision::admit("")),
            Some(user) => {
                session.select_subprotocol("chat")?;
                session.set_expiry(Some(clock::now() + 60_000));
                Ok(Decision::admit(user))
            }
            None => Ok(Decision::Pass),
        }
    }

    fn opened(&self, session: Session) -> Result {
        session.subscribe("all")?.with_presence("here")?;
        session.send(self.greeting.as_str());
        Ok(())
    }

    fn closed(&self, session: Session, close: Close) -> Result {
        log::info!(code = close.code; "{} left {:?}", session.user().unwrap_or_default(), session.topics());
        Ok(())
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let text = message.as_text().context("text only")?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "publish" => {
                topics::publish("all", rest)?;
            }
            "others" => {
                topics::publish("all", rest)?.exclude(session).no_history();
            }
            "once" => {
                topics::publish("all", rest)?.idempotency_key("key")?;
            }
            "fail" => {
                session.send("never");
                session.set_attribute("never", "never")?;
                topics::publish("all", "never")?;
                return Err("on purpose".into());
            }
            "acknowledged" => {
                topics::publish("all", rest)?;
                session.send("done");
            }
            "excused" => {
                topics::publish("all", rest)?;
                session.send("done");
                session.send_if_refused("sorry");
            }
            "join" => {
                topics::publish(rest, "too early")?;
                let page = history::last(rest, 2)?;
                session.subscribe(rest)?.with_recovery(page.position);
                topics::publish(rest, "delivered")?;
                session.send("acknowledged");
                assert!(session.is_subscribed(rest));
            }
            "keep" => KEPT.set(Some(session)),
            "use" => drop(KEPT.get().map(Session::id)),
            "attribute" => {
                session.set_attribute("a", rest)?;
                assert_eq!(session.attribute("a").as_deref(), Some(rest));
            }
            "timer" => session.set_timer(rest, Duration::from_secs(10))?,
            "cancel" => session.cancel_timer(rest),
            "whisper" => users::send("bob", rest)?,
            "kick" => sessions::disconnect(rest, 4000, "out")?,
            "close" => session.close(rest.parse()?, "bye"),
            "rename" => session.set_user(Some(rest))?,
            "newest" => session.limit_sessions(rest.parse()?, Keep::Newest)?,
            "oldest" => session.limit_sessions(rest.parse()?, Keep::Oldest)?,
            "count" => session.send(kv::increment("count", 1, Some(Duration::from_secs(5)))?.to_string()),
            "swap" => session.send(kv::compare_and_set("swap", None, rest, None)?.to_string()),
            "random" => session.send(random::bytes(9)),
            "who" => session.send(format!("{:?}", presence::count("all")?)),
            "header" => session.send(session.header("X-Kept").unwrap_or_default()),
            other => return Err(format!("`{other}`?").into()),
        }
        Ok(Verdict::Stop)
    }

    fn publication(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        assert_eq!((publication.topic().as_str(), publication.position()), (topic, None));
        Ok(match message.as_text() {
            Some("drop") => Verdict::Stop,
            Some("refuse") => return Err("refused".into()),
            Some("shout") => Verdict::replace("SHOUT"),
            _ => Verdict::Next,
        })
    }

    fn timer(&self, session: Session, name: &str) -> Result {
        session.send(format!("{name} at {}", clock::monotonic().as_secs()));
        Ok(())
    }

    fn presence(&self, change: presence::Change) -> Result {
        log::debug!("{:?} {:?} {}", change.event, change.user, change.sessions_of_user);
        Ok(())
    }
}

tidegate_sdk::export!(Puppet: init, authenticate, session, inbound, batch, publication, timer, presence);
