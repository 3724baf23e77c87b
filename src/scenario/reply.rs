//! What a server that a scenario makes up answers, or why it does not.

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::keys::{Keys, check_message};
use super::pattern::Names;
use crate::client::{Bounds, ClientError};
use crate::message::Message;

/// As it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Answer { status: StatusCode, headers: Vec<(String, String)>, body: Value },
    Failure(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Unavailable,
    Timeout,
    TooLarge,
    Broken,
}

/// With what its names stand for.
#[derive(Debug)]
pub enum Given {
    Answer(Response<Bytes>),
    Failure(Failure),
}

impl Reply {
    /// `{ status = 200, headers = {}, body = MESSAGE }`, `{ failure = "timeout" }`, or a status alone.
    pub fn read(value: toml::Value) -> Result<Self, String> {
        let mut keys = match value {
            toml::Value::Table(table) => Keys(table),
            toml::Value::Integer(_) => Keys(toml::Table::from_iter([("status".to_owned(), value)])),
            _ => {
                return Err("`replies` is a status, { status = 200, body = \"…\" } or { failure = \"timeout\" }".into());
            }
        };
        if let Some(failure) = keys.text("failure")? {
            keys.done("a reply that fails")?;
            return Ok(Self::Failure(match failure.as_str() {
                "unavailable" => Failure::Unavailable,
                "timeout" => Failure::Timeout,
                "too-large" => Failure::TooLarge,
                "broken" => Failure::Broken,
                other => {
                    return Err(format!(
                        "{other:?} is no failure: \"unavailable\", \"timeout\", \"too-large\", \"broken\""
                    ));
                }
            }));
        }
        let status = keys.json("status").unwrap_or_else(|| 200.into());
        let known = status.as_u64().and_then(|status| u16::try_from(status).ok());
        let known = known.and_then(|status| StatusCode::from_u16(status).ok()).filter(|known| known.as_u16() >= 200);
        let status = known.ok_or_else(|| format!("{status} is no status of an answer: 200 to 999"))?;
        let headers = keys.pairs("headers")?;
        if let Some((name, _)) = headers.iter().find(|(name, _)| HeaderName::try_from(name).is_err()) {
            return Err(format!("{name:?} cannot name a header"));
        }
        let body = keys.json("body").unwrap_or_else(|| "".into());
        check_message(&body)?;
        keys.done("a reply")?;
        Ok(Self::Answer { status, headers, body })
    }

    pub fn filled(&self, names: &Names) -> anyhow::Result<Given> {
        let (status, headers, body) = match self {
            Self::Failure(failure) => return Ok(Given::Failure(*failure)),
            Self::Answer { status, headers, body } => (status, headers, body),
        };
        let is_json = body.get("json").is_some();
        let body = names.message(body)?;
        let content_type = match &body {
            _ if is_json => "application/json",
            Message::Text(_) => "text/plain; charset=utf-8",
            Message::Binary(_) => "application/octet-stream",
        };
        let mut response = Response::new(body.payload().clone());
        *response.status_mut() = *status;
        for (name, value) in headers {
            let value = HeaderValue::try_from(names.text(value)?)?;
            response.headers_mut().append(HeaderName::try_from(name)?, value);
        }
        response.headers_mut().entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        Ok(Given::Answer(response))
    }
}

impl Given {
    /// What comes of it for whoever has asked.
    pub fn result(self, bounds: Bounds) -> Result<Response<Bytes>, ClientError> {
        let failure = match self {
            Self::Answer(response) if response.body().len() > bounds.body => Failure::TooLarge,
            Self::Answer(response) => return Ok(response),
            Self::Failure(failure) => failure,
        };
        Err(match failure {
            Failure::Unavailable => ClientError::Connect("the scenario says so".to_owned()),
            Failure::Timeout => ClientError::FirstByteTimeout,
            Failure::TooLarge => ClientError::TooLarge(bounds.body),
            Failure::Broken => ClientError::Broken("the scenario says so".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reply, String> {
        let mut table: toml::Table = toml::from_str(&format!("replies = {text}")).unwrap();
        Reply::read(table.remove("replies").unwrap())
    }

    #[test]
    fn a_reply_is_an_answer_or_a_failure() {
        assert_eq!(read("204"), read("{ status = 204 }"));
        assert_eq!(read("{ failure = \"too-large\" }"), Ok(Reply::Failure(Failure::TooLarge)));
        let Given::Answer(json) = read("{ body = { json = { a = 1 } } }").unwrap().filled(&Names::default()).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (json.status().as_u16(), &json.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        for (text, expected) in [
            ("\"ok\"", "`replies` is a status"),
            ("101", "101 is no status of an answer"),
            ("{ failure = \"late\" }", "\"late\" is no failure"),
            ("{ failure = \"timeout\", status = 200 }", "`status` is no word of a reply that fails"),
            ("{ text = \"x\" }", "`text` is no word of a reply"),
            ("{ headers = { \"a b\" = \"x\" } }", "cannot name a header"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn an_answer_that_is_too_large_is_a_failure() {
        let second = std::time::Duration::from_secs(1);
        let bounds = Bounds { connect: second, first_byte: second, between_bytes: second, body: 2 };
        let give = |text: &str| read(text).unwrap().filled(&Names::default()).unwrap().result(bounds);
        assert_eq!(give("{ body = \"ab\" }").unwrap().into_body(), "ab");
        assert!(matches!(give("{ body = \"abc\" }"), Err(ClientError::TooLarge(2))));
    }
}
