//! What a call came to when it was recorded, beside what it comes to now.

use serde::Serialize;
use serde_json::Value;

use crate::plugin::Described;

/// Lists whose lengths multiply to more are not compared in detail.
const DETAIL: usize = 1 << 20;

/// All of a call that is compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    #[serde(flatten)]
    pub outcome: Described,
    /// What was done at once: the store's writes, requests to other servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<Value>,
    /// What the recording has no answer for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Value>,
    /// The build has no such hook.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_hook: bool,
}

/// A line of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub what: What,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Answer,
    Failed,
    Effect,
    Done,
    Unanswered,
    NoHook,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    Same(Item),
    Recorded(Item),
    Now(Item),
    /// Where the last two differ, and how.
    Place {
        place: String,
        recorded: Value,
        now: Value,
    },
}

impl Side {
    pub fn items(&self) -> Vec<Item> {
        let item = |what| move |value: &Value| Item { what, value: value.clone() };
        let mut items = Vec::new();
        if self.no_hook {
            items.push(Item { what: What::NoHook, value: Value::Null });
        }
        items.extend(self.outcome.answer.iter().map(item(What::Answer)));
        let failed = self.outcome.failed.as_ref();
        items.extend(
            failed.map(|failed| Item { what: What::Failed, value: format!("{}: {}", failed.why, failed.what).into() }),
        );
        items.extend(self.outcome.effects.iter().map(item(What::Effect)));
        items.extend(self.done.iter().map(item(What::Done)));
        items.extend(self.unanswered.iter().map(item(What::Unanswered)));
        items
    }
}

/// The lines of both sides, those that they share once.
pub fn compare(recorded: &Side, now: &Side) -> Vec<Compared> {
    let (one, other) = (recorded.items(), now.items());
    let begin = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let (rest_one, rest_other) = (&one[begin..], &other[begin..]);
    let end = rest_one.iter().rev().zip(rest_other.iter().rev()).take_while(|(one, other)| one == other).count();
    let (middle_one, middle_other) = (&rest_one[..rest_one.len() - end], &rest_other[..rest_other.len() - end]);
    let mut lines: Vec<_> = one[..begin].iter().cloned().map(Compared::Same).collect();
    lines.extend(middle(middle_one, middle_other));
    lines.extend(rest_one[rest_one.len() - end..].iter().cloned().map(Compared::Same));
    lines
}

/// By the longest common subsequence (Wagner and Fischer 1974); what has changed in its place stands side by side.
fn middle(one: &[Item], other: &[Item]) -> Vec<Compared> {
    let mut lines = Vec::new();
    if one.len().saturating_mul(other.len()) > DETAIL {
        lines.extend(one.iter().cloned().map(Compared::Recorded));
        lines.extend(other.iter().cloned().map(Compared::Now));
        return lines;
    }
    let width = other.len() + 1;
    let mut longest = vec![0_u32; (one.len() + 1) * width];
    for at in (0..one.len()).rev() {
        for to in (0..other.len()).rev() {
            longest[at * width + to] = match one[at] == other[to] {
                true => longest[(at + 1) * width + to + 1] + 1,
                false => longest[(at + 1) * width + to].max(longest[at * width + to + 1]),
            };
        }
    }
    let (mut at, mut to) = (0, 0);
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    while at < one.len() || to < other.len() {
        if at < one.len() && to < other.len() && one[at] == other[to] {
            pairs(&mut gone, &mut new, &mut lines);
            lines.push(Compared::Same(one[at].clone()));
            (at, to) = (at + 1, to + 1);
        } else if to >= other.len()
            || (at < one.len() && longest[(at + 1) * width + to] >= longest[at * width + to + 1])
        {
            gone.push(one[at].clone());
            at += 1;
        } else {
            new.push(other[to].clone());
            to += 1;
        }
    }
    pairs(&mut gone, &mut new, &mut lines);
    lines
}

/// What stands between two lines that are the same: as many changes as there are pairs, then what is left over.
fn pairs(gone: &mut Vec<Item>, new: &mut Vec<Item>, lines: &mut Vec<Compared>) {
    let mut gone = std::mem::take(gone).into_iter();
    let mut new = std::mem::take(new).into_iter();
    loop {
        match (gone.next(), new.next()) {
            (None, None) => return,
            (one, other) => {
                let place = match (&one, &other) {
                    (Some(one), Some(other)) if one.what == other.what => {
                        place(&one.value, &other.value, String::new())
                    }
                    _ => None,
                };
                lines.extend(one.map(Compared::Recorded));
                lines.extend(other.map(Compared::Now));
                lines.extend(
                    place.filter(|(place, ..)| !place.is_empty()).map(|(place, recorded, now)| Compared::Place {
                        place,
                        recorded,
                        now,
                    }),
                );
            }
        }
    }
}

/// The only place where two values differ; texts of JSON are looked into. None: there are several.
fn place(one: &Value, other: &Value, at: String) -> Option<(String, Value, Value)> {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (one, other) {
        (Value::Object(one), Value::Object(other)) if one.len() == other.len() => {
            let mut differing = one.iter().filter(|(key, value)| other.get(*key) != Some(value));
            match (differing.next(), differing.next()) {
                (Some((key, value)), None) => place(value, other.get(key)?, below(key)),
                _ => None,
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut differing = one.iter().zip(other).enumerate().filter(|(_, (one, other))| one != other);
            match (differing.next(), differing.next()) {
                (Some((index, (one, other))), None) => place(one, other, below(&index.to_string())),
                _ => None,
            }
        }
        (Value::String(text), Value::String(new)) => {
            let structure = |text: &str| {
                let value = serde_json::from_str::<Value>(text).ok()?;
                (value.is_object() || value.is_array()).then_some(value)
            };
            match (structure(text), structure(new)) {
                (Some(inner), Some(now)) if inner != now => place(&inner, &now, at),
                _ => Some((at, one.clone(), other.clone())),
            }
        }
        (one, other) if one != other => Some((at, one.clone(), other.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn side(effects: &[Value]) -> Side {
        let outcome = Described { answer: Some("stop".into()), failed: None, effects: effects.to_vec() };
        Side { outcome, done: Vec::new(), unanswered: Vec::new(), no_hook: false }
    }

    fn lines(recorded: &[Value], now: &[Value]) -> Vec<String> {
        let show = |line: &Compared| match line {
            Compared::Same(item) => format!("  {}", item.value),
            Compared::Recorded(item) => format!("- {}", item.value),
            Compared::Now(item) => format!("+ {}", item.value),
            Compared::Place { place, recorded, now } => format!("    {place}: {recorded} {now}"),
        };
        compare(&side(recorded), &side(now)).iter().map(show).collect()
    }

    #[test]
    fn lines_that_are_the_same_stand_once() {
        let [a, b, c] = ["a", "b", "c"].map(|text| json!({ "send": text }));
        let is = |recorded: &[Value], now: &[Value], expected: &[&str]| {
            let got = lines(recorded, now);
            let got: Vec<_> = got[1..].iter().map(|line| line.replace("{\"send\":\"", "").replace("\"}", "")).collect();
            assert_eq!(got, expected);
        };
        is(&[a.clone(), b.clone()], &[a.clone(), b.clone()], &["  a", "  b"]);
        is(&[a.clone(), c.clone()], &[a.clone(), b.clone(), c.clone()], &["  a", "+ b", "  c"]);
        is(&[a.clone(), b.clone(), c.clone()], &[a.clone(), c.clone()], &["  a", "- b", "  c"]);
        is(&[a.clone(), b.clone()], &[b.clone(), a.clone()], &["- a", "  b", "+ a"]);
        is(&[], std::slice::from_ref(&a), &["+ a"]);
        is(std::slice::from_ref(&a), std::slice::from_ref(&b), &["- a", "+ b", "    send: \"a\" \"b\""]);
    }

    #[test]
    fn the_place_of_a_single_change_is_found_in_messages_too() {
        let publish =
            |text: &str| json!({ "publish": "room", "message": json!({ "text": text, "n": [1] }).to_string() });
        let got = lines(&[publish("hi")], &[publish("ho")]);
        assert_eq!(got.last().unwrap(), "    message.text: \"hi\" \"ho\"");
        assert_eq!(lines(&[json!({ "a": 1, "b": 1 })], &[json!({ "a": 2, "b": 2 })]).len(), 3, "no single place");
    }

    #[test]
    fn long_lists_are_compared_all_the_same() {
        let many = |from: usize| (from..from + 2_000).map(|n| json!({ "send": n })).collect::<Vec<_>>();
        let got = lines(&many(0), &many(10_000));
        assert_eq!(got.len(), 1 + 4_000);
    }
}
