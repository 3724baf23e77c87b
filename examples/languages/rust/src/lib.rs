//! A tour of the plugin interface, in Rust. The folders beside this one have the same plugin in other languages.

use std::time::Duration;

use tidegate_sdk::{Close, Context, Decision, Message, Plugin, Refusal, Result, Session, Verdict, config, log, topics};

struct Tour {
    greeting: String,
    /// The longest message, in bytes.
    longest: usize,
}

impl Plugin for Tour {
    fn init() -> Result<Self> {
        log::panics();
        let greeting = config::get("greeting").unwrap_or_else(|| "welcome".to_owned());
        let longest = config::get("longest").unwrap_or_else(|| "200".to_owned());
        let longest = longest.parse().ok().context(format!("longest = `{longest}`: not a number of bytes"))?;
        log::info!("ready");
        Ok(Self { greeting, longest })
    }

    fn authenticate(&self, session: Session) -> Result<Decision> {
        let Some(name) = session.query("name") else {
            session.set_body("text/plain", "who are you? add ?name=YOU to the address\n");
            return Ok(Decision::Refuse(401));
        };
        if !is_name(&name) {
            session.set_body("text/plain", "a name is 1 to 32 letters, digits, - and _\n");
            return Ok(Decision::Refuse(403));
        }
        session.add_header("x-tour-name", &name)?;
        Ok(Decision::admit(name))
    }

    fn opened(&self, session: Session) -> Result {
        let name = session.user().unwrap_or_default();
        log::info!(name = name; "came");
        session.send(format!("{}, {name}", self.greeting));
        Ok(())
    }

    fn closed(&self, _: Session, close: Close) -> Result {
        log::info!(code = close.code; "went");
        Ok(())
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let Some(text) = message.as_text() else {
            session.close(1003, "text only");
            return Ok(Verdict::Stop);
        };
        if text.len() > self.longest {
            session.send(format!("at most {} bytes", self.longest));
            return Ok(Verdict::Stop);
        }
        let (command, rest) = split(text);
        match command {
            "echo" => session.send(rest),
            "join" => join(session, rest)?,
            "leave" => leave(session, rest),
            "say" => say(session, rest)?,
            "topics" => session.send(format!("topics: {}", session.topics().join(", "))),
            "count" => count(session)?,
            "remind" => remind(session, rest)?,
            "fail" => {
                session.send("never sent");
                return Err("asked to fail".into());
            }
            #[expect(clippy::panic, reason = "shows what a panic looks like in the log")]
            "crash" => {
                session.send("never sent");
                panic!("asked to crash");
            }
            _ => session.send(format!("there is no `{command}`; try: echo join leave say topics count remind")),
        }
        Ok(Verdict::Stop)
    }

    fn timer(&self, session: Session, name: &str) -> Result {
        let text = session.attribute(name).unwrap_or_default();
        session.remove_attribute(name);
        session.send(format!("remember: {text}"));
        Ok(())
    }
}

tidegate_sdk::export!(Tour: init, authenticate, session, inbound, timer);

/// `join TOPIC`: subscribe, seen by the others. The answer comes before the first delivery.
fn join(session: Session, topic: &str) -> Result {
    match session.subscribe(topic) {
        Ok(subscribe) => {
            subscribe.with_presence("on tour")?;
            session.send(format!("joined {topic}"));
        }
        Err(Refusal::Denied) => session.send(format!("may not join {topic}")),
        Err(_) => session.send(format!("cannot join {topic}")),
    }
    Ok(())
}

/// `leave TOPIC`
fn leave(session: Session, topic: &str) {
    if session.is_subscribed(topic) {
        session.unsubscribe(topic);
        session.send(format!("left {topic}"));
    } else {
        session.send(format!("not on {topic}"));
    }
}

/// `say TOPIC TEXT`: publish to everyone else. The answer tells the truth: if the publication is refused later, the
/// client gets the other one.
fn say(session: Session, rest: &str) -> Result {
    let (topic, text) = split(rest);
    let name = session.user().unwrap_or_default();
    match topics::publish(topic, format!("{name}: {text}")) {
        Ok(publish) => {
            publish.exclude(session).metadata("from", &name)?;
            session.send_if_refused("not said, try again");
            session.send("said");
        }
        Err(Refusal::Denied) => session.send(format!("may not say to {topic}")),
        Err(_) => session.send(format!("cannot say to {topic}")),
    }
    Ok(())
}

/// `count`: an attribute remembers something for one session; the plugin's memory would not.
fn count(session: Session) -> Result {
    let count = session.attribute("count").and_then(|count| count.parse::<u32>().ok()).unwrap_or(0) + 1;
    session.set_attribute("count", &count.to_string())?;
    session.send(count.to_string());
    Ok(())
}

/// `remind MILLISECONDS TEXT`
fn remind(session: Session, rest: &str) -> Result {
    let (after, text) = split(rest);
    let Ok(after) = after.parse::<u32>() else {
        session.send("remind MILLISECONDS TEXT");
        return Ok(());
    };
    session.set_attribute("reminder", text)?;
    session.set_timer("reminder", Duration::from_millis(after.into()))?;
    session.send("will remind");
    Ok(())
}

/// The first word, and what comes after the space.
fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(letter)
}

#[cfg(test)]
mod tests;
