//! What came of a call: its answer and what it has added to its event. One form for those who compare calls and for
//! those who tell of them: shadows, recordings and replays, scenarios.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Answer;
use super::describe;
use super::effects::{Effects, Response};
use super::event::Event;
use super::failure::Why;

/// How far an event had come before a call: what is there already is of other plugins.
pub struct Mark {
    list: usize,
    if_refused: usize,
    response: Response,
}

/// What came of a call. What a failed call has asked for is for nobody.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub answer: Result<Answer, Failed>,
    pub effects: Effects,
}

/// Why a call failed. Two failures of one kind are the same: their sentences name functions and numbers of a build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// One word, as the metric has it.
    pub why: String,
    pub what: String,
}

/// An outcome as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Value>,
}

impl PartialEq for Failed {
    fn eq(&self, other: &Self) -> bool {
        self.why == other.why
    }
}

impl From<&Why> for Failed {
    fn from(why: &Why) -> Self {
        Self { why: why.label().to_owned(), what: why.to_string() }
    }
}

impl Mark {
    /// Before a call.
    pub fn of(event: &Option<Box<Event>>) -> Self {
        let Some(effects) = event.as_ref().map(|event| &event.effects) else {
            return Self { list: 0, if_refused: 0, response: Response::default() };
        };
        Self { list: effects.list.len(), if_refused: effects.if_refused.len(), response: effects.response.clone() }
    }

    /// What was added since.
    fn since(&self, effects: &Effects) -> Effects {
        let Effects { list, if_refused, response } = effects;
        let former = &self.response;
        Effects {
            list: list.get(self.list..).unwrap_or_default().to_vec(),
            if_refused: if_refused.get(self.if_refused..).unwrap_or_default().to_vec(),
            response: Response {
                subprotocol: response.subprotocol.clone().filter(|new| former.subprotocol.as_ref() != Some(new)),
                headers: response.headers.get(former.headers.len()..).unwrap_or_default().to_vec(),
                body: response.body.clone().filter(|new| former.body.as_ref() != Some(new)),
            },
        }
    }
}

impl Outcome {
    pub fn of(answer: Result<&Answer, &Why>, mark: &Mark, event: &Option<Box<Event>>) -> Self {
        let effects = match (answer, event) {
            (Ok(_), Some(event)) => mark.since(&event.effects),
            _ => Effects::default(),
        };
        Self { answer: answer.cloned().map_err(Failed::from), effects }
    }

    pub fn described(&self) -> Described {
        Described {
            answer: self.answer.as_ref().ok().map(describe::answer),
            failed: self.answer.as_ref().err().cloned(),
            effects: describe::effects(&self.effects),
        }
    }
}
