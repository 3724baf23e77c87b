//! `history`: what a topic has kept.

use serde_json::json;
use wasmtime::Result;

use super::wit::history::Page;
use super::wit::types::{Position as WitPosition, Refusal};
use super::{GrantedTopics, State, topic_name, wit};
use crate::broker::BrokerError;
use crate::message::Position;
use crate::plugin::describe;

/// Publications of one page.
const PAGE: u32 = 1_000;
/// Publications that one event may have read, so that its memory is bounded.
const PUBLICATIONS: usize = 10_000;

impl wit::history::Host for State {
    async fn read(&mut self, topic: String, since: Option<WitPosition>, limit: u32) -> Result<Result<Page, Refusal>> {
        self.enter()?;
        let name = match topic_name(&topic) {
            Ok(name) => name,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.granted_topic(GrantedTopics::Subscribe, &topic).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        let since = since.map(|since| Position { epoch: since.epoch, offset: since.offset });
        let with = || json!({ "topic": topic, "since": since.map(describe::position), "limit": limit });
        let (script, node) = (self.script().cloned(), self.context.node.clone());
        let live = async {
            if node.rules.of(&topic).retention.size == 0 {
                return Err(Refusal::Unsupported);
            }
            node.hub.history(&name, since, limit.min(PAGE) as usize).await.map_err(|error| match error {
                BrokerError::Full => Refusal::TooMany,
                _ => Refusal::Unavailable,
            })
        };
        let page = match Self::awaited(script, "history.read", with, None, live).await {
            Ok(page) => page,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let event = self.event()?;
        if event.publications.len() + page.publications.len() > PUBLICATIONS {
            return Ok(Err(Refusal::TooMany));
        }
        let first = event.publications.len() as u64 + 1;
        let handles = (first..).take(page.publications.len()).collect();
        event.publications.extend(page.publications);
        Ok(Ok(Page {
            publications: handles,
            position: WitPosition { epoch: page.position.epoch, offset: page.position.offset },
            complete: page.complete,
        }))
    }
}
