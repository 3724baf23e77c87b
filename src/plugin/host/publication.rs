//! `publication`: what a hook was called for, or what was read from a history.

use wasmtime::Result;

use super::wit::types::{Message, Position};
use super::{State, mistake, wit, wit_message};
use crate::message::Publication;

impl State {
    fn publication(&mut self, handle: u64) -> Result<&Publication> {
        self.enter()?;
        let place = handle.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let found = place.and_then(|place| self.event.as_ref()?.publications.get(place));
        found
            .map(|publication| &**publication)
            .ok_or_else(|| mistake(format!("{handle} is not a publication of this call")))
    }
}

impl wit::publication::Host for State {
    fn topic(&mut self, publication: u64) -> Result<String> {
        Ok(self.publication(publication)?.topic.as_str().to_owned())
    }

    fn content(&mut self, publication: u64) -> Result<Message> {
        let content = wit_message(&self.publication(publication)?.message);
        Ok(self.given(content))
    }

    fn history_position(&mut self, publication: u64) -> Result<Option<Position>> {
        let position = self.publication(publication)?.position;
        Ok(position.map(|position| Position { epoch: position.epoch, offset: position.offset }))
    }

    fn time(&mut self, publication: u64) -> Result<u64> {
        Ok(self.publication(publication)?.time)
    }

    fn key(&mut self, publication: u64) -> Result<Option<String>> {
        Ok(self.publication(publication)?.key.as_deref().map(str::to_owned))
    }

    fn metadata(&mut self, publication: u64, name: String) -> Result<Option<String>> {
        let metadata = &self.publication(publication)?.metadata;
        let value = metadata.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.to_string());
        Ok(self.given(value))
    }
}
