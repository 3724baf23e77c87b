//! Everyone on the route hears what anyone says, louder.

use tidegate_sdk::{Message, Plugin, Result, Session, Verdict, config, topics};

struct Shout {
    greeting: String,
}

impl Plugin for Shout {
    fn init() -> Result<Self> {
        let greeting = config::get("greeting").unwrap_or_else(|| "welcome".to_owned());
        Ok(Self { greeting })
    }

    fn opened(&self, session: Session) -> Result {
        session.subscribe("square")?;
        session.send(self.greeting.as_str());
        Ok(())
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        match message.as_text() {
            Some(text) => drop(topics::publish("square", text.to_uppercase())?),
            None => session.close(1003, "text only"),
        }
        Ok(Verdict::Stop)
    }
}

// The hooks that the plugin has. One that is not named costs nothing.
tidegate_sdk::export!(Shout: init, session, inbound);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_sdk::{Result, testing::Gateway};

    use super::Shout;

    #[test]
    fn everyone_hears_what_anyone_says() -> Result {
        let gateway = Gateway::<Shout>::new().config(json!({ "greeting": "hi" }));
        let alice = gateway.connect().open()?;
        let bob = gateway.connect().open()?;
        alice.says("hello")?;
        assert_eq!(alice.received(), ["hi", "HELLO"]);
        assert_eq!(bob.received(), ["hi", "HELLO"]);
        Ok(())
    }
}
