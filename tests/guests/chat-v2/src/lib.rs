//! The chat plugin with a behaviour that can be seen: whatever is said ends in " (v2)". For tests that replace plugins.

use chat::Chat;
use tidegate_sdk::{Message, Plugin, Result, Session, Verdict, presence};

struct ChatV2(Chat);

impl Plugin for ChatV2 {
    fn init() -> Result<Self> {
        Chat::init().map(Self)
    }

    fn opened(&self, session: Session) -> Result {
        self.0.opened(session)
    }

    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let said = message.json::<serde_json::Value>().ok().filter(|said| said["type"] == "say");
        let message = match said {
            Some(mut said) => {
                said["text"] = format!("{} (v2)", said["text"].as_str().unwrap_or_default()).into();
                Message::from(said.to_string())
            }
            None => message,
        };
        self.0.inbound(session, message)
    }

    fn presence(&self, change: presence::Change) -> Result {
        self.0.presence(change)
    }
}

tidegate_sdk::export!(ChatV2: init, session, inbound, presence);
