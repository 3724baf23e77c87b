//! What came of a step beside what was expected of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::came::{Came, concerned};
use super::client::Handshake;
use super::expected::{Effects, Expected};
use super::pattern::Names;
use super::request::Response;
use super::words::inline;

/// One thing that is not as expected.
#[derive(Debug)]
pub struct Difference {
    pub what: String,
    pub lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Same(String),
    Expected(String),
    Got(String),
    /// About the line before.
    Why(String),
}

impl Came {
    /// What differs from what was expected; empty: nothing.
    pub fn compare(&self, expected: &Expected, names: &mut Names) -> Vec<Difference> {
        let mut all = Differences { names, all: Vec::new() };
        if let Some(handshake) = &self.handshake {
            all.handshake(handshake, self.user.as_deref(), expected);
        }
        if let Some(response) = &self.response {
            all.response(response, expected.responds.as_ref());
        }
        self.unanswered.iter().for_each(|what| all.unexpected("nobody was there to answer", what));
        all.reasons("fails", expected.fails.as_deref(), "it failed", &self.failures);
        let refused = "an effect was refused as it was applied";
        all.reasons("refuses", expected.refuses.as_deref(), refused, &self.refused);
        all.list("denied", &expected.denied, &self.denied);
        self.effects(expected, &mut all);
        if let Some(receives) = &expected.receives {
            let clients = receives.keys().chain(self.received.keys().filter(|client| !receives.contains_key(*client)));
            for client in clients {
                let of = |all: &BTreeMap<String, Vec<Value>>| all.get(client).cloned().unwrap_or_default();
                all.list(&format!("{client} receives"), &of(receives), &of(&self.received));
            }
        }
        for (what, expected, got) in [
            ("answers", &expected.answers, &self.answers),
            ("hooks", &expected.hooks, &self.hooks),
            ("logs", &expected.logs, &self.logs),
            ("kv", &expected.kv, &self.kv),
            ("asks", &expected.asks, &self.asks),
        ] {
            if let Some(expected) = expected {
                all.list(what, expected, &concerned(expected, got));
            }
        }
        all.all
    }

    fn effects(&self, expected: &Expected, all: &mut Differences<'_>) {
        let is_send = |effect: &Value| effect.get("send").is_some();
        let these: &[Value] = match &expected.effects {
            Some(Effects::Any) => return,
            Some(Effects::These(these)) => these,
            None => &[],
        };
        let mut got = concerned(these, &self.effects);
        // What a client has received tells of the sends.
        if expected.receives.is_some() && !these.iter().any(is_send) {
            got.retain(|effect| !is_send(effect));
        }
        all.list("effects", these, &got);
    }
}

struct Differences<'a> {
    names: &'a mut Names,
    all: Vec<Difference>,
}

impl Differences<'_> {
    fn push(&mut self, what: &str, lines: Vec<Line>) {
        self.all.push(Difference { what: what.to_owned(), lines });
    }

    fn unexpected(&mut self, what: &str, why: &str) {
        self.push(what, vec![Line::Got(why.to_owned())]);
    }

    /// What went wrong must be expected, and one of the reasons must have the text in it.
    fn reasons(&mut self, what: &str, wanted: Option<&str>, unexpected: &str, got: &[String]) {
        match wanted {
            None => got.iter().for_each(|why| self.unexpected(unexpected, why)),
            Some(wanted) if got.iter().any(|why| why.contains(wanted)) => {}
            Some(wanted) => {
                let got = got.iter().map(|why| Line::Got(why.clone()));
                let lines = [Line::Expected(format!("a reason with {wanted:?} in it"))].into_iter().chain(got);
                self.push(what, lines.collect());
            }
        }
    }

    /// Line by line: what is missing, what nobody expected, and what is other than expected.
    fn list(&mut self, what: &str, expected: &[Value], got: &[Value]) {
        let mut lines = Vec::new();
        let (mut wanted, mut came) = (expected, got);
        let mut differ = false;
        loop {
            match (wanted, came) {
                ([], []) => break,
                ([one, wanted_rest @ ..], [other, came_rest @ ..]) => match self.names.compare(one, other) {
                    Ok(()) => {
                        lines.push(Line::Same(self.told(other)));
                        (wanted, came) = (wanted_rest, came_rest);
                    }
                    Err(mismatch) => {
                        differ = true;
                        let comes_later = came_rest.iter().any(|other| self.names.clone().compare(one, other).is_ok());
                        let was_later = wanted_rest.iter().any(|one| self.names.clone().compare(one, other).is_ok());
                        if comes_later {
                            lines.push(Line::Got(self.told(other)));
                            came = came_rest;
                        } else if was_later {
                            lines.push(Line::Expected(inline(one)));
                            wanted = wanted_rest;
                        } else {
                            lines.extend([Line::Expected(inline(one)), Line::Got(self.told(other))]);
                            if !mismatch.place.is_empty() {
                                lines.push(Line::Why(format!("{}: {}", mismatch.place, mismatch.what)));
                            } else if mismatch.what.starts_with("${") {
                                lines.push(Line::Why(mismatch.what));
                            }
                            (wanted, came) = (wanted_rest, came_rest);
                        }
                    }
                },
                ([one, rest @ ..], []) => {
                    differ = true;
                    lines.push(Line::Expected(inline(one)));
                    wanted = rest;
                }
                ([], [other, rest @ ..]) => {
                    differ = true;
                    lines.push(Line::Got(self.told(other)));
                    came = rest;
                }
            }
        }
        if differ {
            self.push(what, lines);
        }
    }

    fn told(&self, value: &Value) -> String {
        inline(&self.names.told(value))
    }

    fn value(&mut self, what: &str, expected: &Value, got: &Value) {
        self.list(what, std::slice::from_ref(expected), std::slice::from_ref(got));
    }

    fn handshake(&mut self, handshake: &Handshake, user: Option<&str>, expected: &Expected) {
        let Handshake { status, headers, body } = handshake;
        let answer = format!("{status} {}", inline(&body.as_str().into()));
        if let Some(refused) = &expected.refused {
            if *status == 101 {
                let lines =
                    vec![Line::Expected(format!("refused = {}", inline(refused))), Line::Got("admitted".into())];
                return self.push("the handshake", lines);
            }
            let Value::Object(keys) = refused else { return self.value("refused", refused, &(*status).into()) };
            for (key, wanted) in keys {
                match key.as_str() {
                    "status" => self.value("refused with the status", wanted, &(*status).into()),
                    "body" => self.value("refused with the body", wanted, &body.as_str().into()),
                    "headers" => self.headers(wanted, headers),
                    other => self.unexpected("the scenario", &format!("`refused` has no `{other}`")),
                }
            }
            return;
        }
        if *status != 101 {
            let lines = vec![Line::Expected("admitted".into()), Line::Got(format!("refused with {answer}"))];
            return self.push("the handshake", lines);
        }
        let got = Value::from(user.unwrap_or_default());
        match &expected.admitted {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Object(keys)) => {
                for (key, wanted) in keys {
                    let header =
                        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
                    match key.as_str() {
                        "user" => self.value("admitted as", wanted, &got),
                        "subprotocol" => {
                            let selected = header("sec-websocket-protocol").unwrap_or_default();
                            self.value("admitted with the subprotocol", wanted, &selected.into());
                        }
                        "headers" => self.headers(wanted, headers),
                        other => self.unexpected("the scenario", &format!("`admitted` has no `{other}`")),
                    }
                }
            }
            Some(wanted) => self.value("admitted as", wanted, &got),
        }
    }

    /// Without expectations, any that is no error.
    fn response(&mut self, response: &Response, expected: Option<&Value>) {
        let Response { status, headers, body } = response;
        let Some(Value::Object(keys)) = expected else {
            if *status >= 400 {
                let got = format!("responds = {}", inline(&response.told()));
                self.push("the response", vec![Line::Expected("no error".to_owned()), Line::Got(got)]);
            }
            return;
        };
        for (key, wanted) in keys {
            match key.as_str() {
                "status" => self.value("responds with the status", wanted, &(*status).into()),
                "headers" => self.headers(wanted, headers),
                _ => self.value("responds with the body", wanted, body),
            }
        }
    }

    /// Those that are named must be there; others may be.
    fn headers(&mut self, wanted: &Value, headers: &[(String, String)]) {
        for (name, wanted) in wanted.as_object().into_iter().flatten() {
            let name = name.to_ascii_lowercase();
            match headers.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => self.value(&format!("the header {name}"), wanted, &value.as_str().into()),
                None => self.push(&format!("the header {name}"), vec![Line::Expected(inline(wanted))]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(expected: Value, got: Value) -> Vec<String> {
        let mut names = Names::default();
        let mut all = Differences { names: &mut names, all: Vec::new() };
        let list = |value: Value| value.as_array().cloned().unwrap();
        all.list("x", &list(expected), &list(got));
        let show = |line: &Line| match line {
            Line::Same(text) => format!("  {text}"),
            Line::Expected(text) => format!("- {text}"),
            Line::Got(text) => format!("+ {text}"),
            Line::Why(text) => format!("    {text}"),
        };
        all.all.iter().flat_map(|difference| difference.lines.iter().map(show)).collect()
    }

    #[test]
    fn a_list_says_what_is_missing_and_what_is_too_much() {
        assert!(lines(json!(["a", "b"]), json!(["a", "b"])).is_empty());
        assert_eq!(lines(json!(["a", "c"]), json!(["a", "b", "c"])), ["  \"a\"", "+ \"b\"", "  \"c\""]);
        assert_eq!(lines(json!(["a", "b", "c"]), json!(["a", "c"])), ["  \"a\"", "- \"b\"", "  \"c\""]);
        assert_eq!(
            lines(json!([{ "a": 1 }]), json!([{ "a": 2 }])),
            ["- { a = 1 }", "+ { a = 2 }", "    a: expected 1, got 2"]
        );
        assert_eq!(lines(json!([]), json!(["a"])), ["+ \"a\""]);
    }
}
