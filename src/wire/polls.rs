//! Long-poll: messages as elements of a JSON array, which a poll fetches together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::positions::Positions;
use crate::message::{Close, MessageRef};

/// One element, with the comma behind it: `{"text": …}` or `{"binary": …}` in base64, and where the client stands then.
pub fn message(out: &mut Vec<u8>, id: Option<&Positions>, message: MessageRef<'_>) {
    let mut element = match message {
        MessageRef::Text(text) => json!({ "text": text }),
        MessageRef::Binary(bytes) => json!({ "binary": STANDARD.encode(bytes) }),
    };
    if let Some(id) = id {
        element["id"] = id.to_string().into();
    }
    push(out, &element);
}

/// Where the client stands now.
pub fn stand(out: &mut Vec<u8>, id: &Positions) {
    push(out, &json!({ "id": id.to_string() }));
}

/// What a poll is answered: the elements that `message` has written, how they are acknowledged, and the end if it has come.
pub fn answer(token: &str, number: u64, elements: &[u8], close: Option<&Close>) -> Vec<u8> {
    let mut out = format!("{{\"session\":{},\"next\":{number},\"messages\":[", json!(token)).into_bytes();
    out.extend_from_slice(elements.strip_suffix(b",").unwrap_or(elements));
    out.push(b']');
    if let Some(close) = close {
        out.extend_from_slice(b",\"close\":");
        out.extend_from_slice(json!({ "code": close.code, "reason": close.reason }).to_string().as_bytes());
    }
    out.push(b'}');
    out
}

fn push(out: &mut Vec<u8>, element: &serde_json::Value) {
    out.extend_from_slice(element.to_string().as_bytes());
    out.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_whatever_is_in_it() {
        let mut elements = Vec::new();
        message(&mut elements, None, MessageRef::Text("a\"\n\u{2603}"));
        message(&mut elements, Some(&Positions::parse("room=1.2").unwrap()), MessageRef::Binary(b"\0"));
        let answer = answer("t", 3, &elements, Some(&Close::new(1012, "restart")));
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let expected = json!({
            "session": "t", "next": 3,
            "messages": [{ "text": "a\"\n\u{2603}" }, { "binary": "AA==", "id": "room=1.2" }],
            "close": { "code": 1012, "reason": "restart" },
        });
        assert_eq!(answer, expected);
        let empty: serde_json::Value = serde_json::from_slice(&super::answer("t", 0, b"", None)).unwrap();
        assert_eq!(empty["messages"], json!([]));
    }
}
