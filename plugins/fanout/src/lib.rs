//! Whatever a client sends on the route `pub`, every client on the route `sub` receives, unchanged. Teaches topics: one
//! side subscribes when it is opened, the other publishes.
//!
//! Configuration: `topic`, the topic between them; `fanout` unless said. Grants: `publish` and `subscribe` for it.

use tidegate_sdk::{Message, Plugin, Result, Session, Verdict, config, topics};

struct Fanout {
    topic: String,
}

impl Plugin for Fanout {
    fn init() -> Result<Self> {
        let topic = config::get("topic").unwrap_or_else(|| "fanout".to_owned());
        Ok(Self { topic })
    }

    fn opened(&self, session: Session) -> Result {
        match session.route().as_str() {
            "sub" => {
                session.subscribe(&self.topic)?;
                Ok(())
            }
            "pub" => Ok(()),
            other => Err(format!("fanout serves routes that are named `pub` or `sub`, not `{other}`").into()),
        }
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        if session.route() == "pub" {
            topics::publish(&self.topic, message)?;
        }
        Ok(Verdict::Stop)
    }
}

tidegate_sdk::export!(Fanout: init, session, inbound);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_sdk::testing::{Gateway, Grants};
    use tidegate_sdk::{Message, Result};

    use super::Fanout;

    #[test]
    fn what_is_published_reaches_every_subscriber_unchanged() -> Result {
        let gateway = Gateway::<Fanout>::new();
        let first = gateway.connect().route("sub").open()?;
        let second = gateway.connect().route("sub").open()?;
        let publisher = gateway.connect().route("pub").open()?;

        publisher.says("one")?;
        publisher.says(vec![2, 2])?;

        let both = [Message::from("one"), Message::from(vec![2, 2])];
        assert_eq!(first.received(), both);
        assert_eq!(second.received(), both);
        assert_eq!(publisher.received().len(), 0);
        Ok(())
    }

    #[test]
    fn what_a_subscriber_says_goes_nowhere() -> Result {
        let gateway = Gateway::<Fanout>::new();
        let subscriber = gateway.connect().route("sub").open()?;
        subscriber.says("hello")?;
        assert_eq!(subscriber.received().len(), 0);
        assert_eq!(gateway.published().len(), 0);
        Ok(())
    }

    #[test]
    fn the_topic_is_configurable() -> Result {
        let gateway = Gateway::<Fanout>::new().config(serde_json::json!({ "topic": "news" }));
        let subscriber = gateway.connect().route("sub").open()?;
        assert_eq!(subscriber.topics(), ["news"]);
        gateway.connect().route("pub").open()?.says("hello")?;
        assert_eq!(gateway.published()[0].topic, "news");
        Ok(())
    }

    #[test]
    fn another_route_and_a_missing_grant_are_errors() -> Result {
        let gateway = Gateway::<Fanout>::new().grants(Grants::none());
        assert!(gateway.connect().route("news").open().unwrap_err().message().contains("`news`"));
        assert!(gateway.connect().route("sub").open().unwrap_err().message().contains("denied"));
        let publisher = gateway.connect().route("pub").open()?;
        assert!(publisher.says("hello").unwrap_err().message().contains("denied"));
        Ok(())
    }
}
