//! Sends each message back as it came. Teaches the least that a plugin needs: a type, a hook, and the line that names it.

use tidegate_sdk::{Message, Plugin, Result, Session, Verdict};

#[derive(Default)]
struct Echo;

impl Plugin for Echo {
    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        session.send(message);
        Ok(Verdict::Stop)
    }
}

tidegate_sdk::export!(Echo: inbound, batch);

#[cfg(test)]
mod tests {
    use tidegate_sdk::{Message, Result, Verdict, testing::Gateway};

    use super::Echo;

    #[test]
    fn text_stays_text_and_bytes_stay_bytes() -> Result {
        let client = Gateway::<Echo>::new().connect().open()?;
        assert_eq!(client.says("héllo")?, Verdict::Stop);
        client.says(vec![0, 255])?;
        client.says("")?;
        assert_eq!(client.received(), [Message::from("héllo"), Message::from(vec![0, 255]), Message::from("")]);
        Ok(())
    }

    #[test]
    fn only_the_sender_hears_it() -> Result {
        let gateway = Gateway::<Echo>::new();
        let (alice, bob) = (gateway.connect().open()?, gateway.connect().open()?);
        alice.says("hello")?;
        assert_eq!(bob.received().len(), 0);
        assert_eq!(alice.received(), ["hello"]);
        Ok(())
    }
}
