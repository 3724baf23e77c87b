//! What host functions read beyond their event: from the node, and on the way to a recording; or from a recording.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::State;
use super::wit::presence::{Counts, Member};
use super::wit::types::Refusal;
use crate::node::Node;
use crate::plugin::describe;
use crate::plugin::script::{Heard, Script};

/// An answer that a recording can keep.
pub trait Answer: Sized {
    fn told(&self) -> Value;

    /// None: a recording that says something else than it should.
    fn heard(value: &Value) -> Option<Self>;
}

impl State {
    /// The script of the call under way; none unless it is recorded or replayed.
    pub fn script(&self) -> Option<&Arc<Script>> {
        self.event.as_ref()?.script.as_ref()
    }

    /// Asks the node, or the recording. `otherwise` is the answer where a replayed call writes what it has not written
    /// when it was recorded, which is told elsewhere; without it, it hears that there is none now.
    pub fn asked<T: Answer>(
        &self,
        ask: &'static str,
        with: impl FnOnce() -> Value,
        otherwise: Option<T>,
        live: impl FnOnce(&Node) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let Some(script) = self.script() else { return live(&self.context.node) };
        let with = with();
        match script.ask(ask, || with.clone(), otherwise.is_some()) {
            Heard::Live => {
                let answer = live(&self.context.node);
                script.keep(ask, || with, || told(&answer));
                answer
            }
            Heard::Recorded(question) => read(&question).unwrap_or(Err(Refusal::Unavailable)),
            Heard::Nothing => otherwise.ok_or(Refusal::Unavailable),
        }
    }

    /// As `asked`, for what must be waited for: `live` is not begun where a recording answers. The script is the call's own
    /// (`script`), so that nothing of the call is held meanwhile.
    pub async fn awaited<T: Answer>(
        script: Option<Arc<Script>>,
        ask: &'static str,
        with: impl FnOnce() -> Value,
        otherwise: Option<T>,
        live: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let Some(script) = script else { return live.await };
        let with = with();
        match script.ask(ask, || with.clone(), otherwise.is_some()) {
            Heard::Live => {
                let answer = live.await;
                script.keep(ask, || with, || told(&answer));
                answer
            }
            Heard::Recorded(question) => read(&question).unwrap_or(Err(Refusal::Unavailable)),
            Heard::Nothing => otherwise.ok_or(Refusal::Unavailable),
        }
    }

    /// Time, randomness and the like. Where the recording has no answer, that of a replay's own node serves: its clock stands at
    /// the call's time. `lenient`: nobody need be told then.
    pub fn known<T: Answer, E>(
        &self,
        ask: &'static str,
        with: impl Fn() -> Value,
        lenient: bool,
        live: impl FnOnce(&Node) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(script) = self.script() else { return live(&self.context.node) };
        if let Heard::Recorded(question) = script.ask(ask, &with, lenient)
            && let Some(answer) = question.get("is").and_then(T::heard)
        {
            return Ok(answer);
        }
        let answer = live(&self.context.node)?;
        script.keep(ask, with, || ("is", answer.told()));
        Ok(answer)
    }

    /// Notes what is done at once, as a replay's difference if it was not recorded so.
    pub fn does(&self, ask: &'static str, with: impl FnOnce() -> Value) -> usize {
        self.script().map_or(usize::MAX, |script| script.done(ask, with))
    }

    /// The guest is given this: in a replay it matters whether that was redacted.
    pub fn given<T: Texts>(&self, value: T) -> T {
        if let Some(script) = self.script() {
            value.texts(&mut |text| script.gives(text));
        }
        value
    }
}

fn told<T: Answer>(answer: &Result<T, Refusal>) -> (&'static str, Value) {
    match answer {
        Ok(value) => ("is", value.told()),
        Err(refusal) => ("refused", refusal_name(*refusal).into()),
    }
}

fn read<T: Answer>(question: &Value) -> Option<Result<T, Refusal>> {
    match question.get("refused").and_then(Value::as_str) {
        Some(name) => Some(Err(*REFUSALS.iter().find(|refusal| refusal_name(**refusal) == name)?)),
        None => T::heard(question.get("is")?).map(Ok),
    }
}

const REFUSALS: [Refusal; 6] = [
    Refusal::Invalid,
    Refusal::Denied,
    Refusal::TooLarge,
    Refusal::TooMany,
    Refusal::Unsupported,
    Refusal::Unavailable,
];

pub fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Invalid => "invalid",
        Refusal::Denied => "denied",
        Refusal::TooLarge => "too-large",
        Refusal::TooMany => "too-many",
        Refusal::Unsupported => "unsupported",
        Refusal::Unavailable => "unavailable",
    }
}

/// Bytes as people read them, where they are text.
pub fn shown(value: &[u8]) -> Value {
    describe::message(describe::text_or_binary(value))
}

/// What guests are given as text.
pub trait Texts {
    fn texts(&self, each: &mut dyn FnMut(&str));
}

impl Texts for String {
    fn texts(&self, each: &mut dyn FnMut(&str)) {
        each(self);
    }
}

impl<T: Texts> Texts for Option<T> {
    fn texts(&self, each: &mut dyn FnMut(&str)) {
        self.iter().for_each(|value| value.texts(each));
    }
}

impl<T: Texts> Texts for Vec<T> {
    fn texts(&self, each: &mut dyn FnMut(&str)) {
        self.iter().for_each(|value| value.texts(each));
    }
}

impl Texts for (String, String) {
    fn texts(&self, each: &mut dyn FnMut(&str)) {
        each(&self.0);
        each(&self.1);
    }
}

impl Texts for super::wit::types::Message {
    fn texts(&self, each: &mut dyn FnMut(&str)) {
        match self {
            Self::Text(text) => each(text),
            Self::Binary(bytes) => std::str::from_utf8(bytes).into_iter().for_each(each),
        }
    }
}

impl Answer for () {
    fn told(&self) -> Value {
        true.into()
    }

    fn heard(_: &Value) -> Option<Self> {
        Some(())
    }
}

impl Answer for bool {
    fn told(&self) -> Value {
        (*self).into()
    }

    fn heard(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Answer for u64 {
    fn told(&self) -> Value {
        (*self).into()
    }

    fn heard(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl Answer for i64 {
    fn told(&self) -> Value {
        (*self).into()
    }

    fn heard(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

/// Random bytes.
impl Answer for Vec<u8> {
    fn told(&self) -> Value {
        STANDARD.encode(self).into()
    }

    fn heard(value: &Value) -> Option<Self> {
        STANDARD.decode(value.as_str()?).ok()
    }
}

/// A value of the store; `false` where there is none.
impl Answer for Option<Vec<u8>> {
    fn told(&self) -> Value {
        self.as_deref().map_or(false.into(), shown)
    }

    fn heard(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(false) => Some(None),
            value => describe::read_bytes(value).map(|bytes| Some(bytes.to_vec())),
        }
    }
}

impl Answer for Counts {
    fn told(&self) -> Value {
        json!({ "sessions": self.sessions, "users": self.users })
    }

    fn heard(value: &Value) -> Option<Self> {
        let number = |key: &str| u32::try_from(value.get(key)?.as_u64()?).ok();
        Some(Self { sessions: number("sessions")?, users: number("users")? })
    }
}

impl Answer for Vec<Member> {
    fn told(&self) -> Value {
        let told = |member: &Member| {
            let Member { session_id, user, info } = member;
            json!({ "session-id": session_id, "user": user, "info": info })
        };
        self.iter().map(told).collect()
    }

    fn heard(value: &Value) -> Option<Self> {
        let text = |member: &Value, key: &str| member.get(key)?.as_str().map(str::to_owned);
        let member = |member: &Value| {
            let user = text(member, "user");
            Some(Member { session_id: text(member, "session-id")?, user, info: text(member, "info")? })
        };
        value.as_array()?.iter().map(member).collect()
    }
}

impl Answer for crate::broker::Page {
    fn told(&self) -> Value {
        json!({
            "publications": self.publications.iter().map(|one| describe::publication(one)).collect::<Vec<_>>(),
            "position": describe::position(self.position),
            "complete": self.complete,
        })
    }

    fn heard(value: &Value) -> Option<Self> {
        let publications = value.get("publications")?.as_array()?.iter();
        Some(Self {
            publications: publications
                .map(|one| describe::read_publication(one).ok().map(Arc::new))
                .collect::<Option<_>>()?,
            position: describe::read_position(value.get("position")?)?,
            complete: value.get("complete")?.as_bool()?,
        })
    }
}
