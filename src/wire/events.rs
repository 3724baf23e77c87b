//! Server-Sent Events (HTML Living Standard, section 9.2): a message is an event, its id says where the client stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::positions::Positions;
use crate::message::{Close, MessageRef};

/// The first of all: how long to wait before coming back, and what the client's own messages are sent with.
pub fn greeting(out: &mut Vec<u8>, token: &str, retry_millis: u32) {
    out.extend_from_slice(format!("retry: {retry_millis}\nevent: session\ndata: ").as_bytes());
    out.extend_from_slice(serde_json::json!({ "session": token }).to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// A text is an event of the type `message`, which needs no name; bytes are one of the type `binary`, in base64.
pub fn message(out: &mut Vec<u8>, id: Option<&Positions>, message: MessageRef<'_>) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    match message {
        MessageRef::Text(text) => lines(out, text),
        MessageRef::Binary(bytes) => {
            out.extend_from_slice(b"event: binary\ndata: ");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// Where the client stands now, without an event: the last id is remembered, and nothing is dispatched.
pub fn stand(out: &mut Vec<u8>, id: &Positions) {
    out.extend_from_slice(format!("id: {id}\n\n").as_bytes());
}

/// Keeps the connection alive, and shows whether it is.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// The last event. Where the history is lost the id is taken back: coming back with it would lose it again.
pub fn close(out: &mut Vec<u8>, close: &Close) {
    if close.code == Close::HISTORY_LOST {
        out.extend_from_slice(b"id:\n");
    }
    let close = serde_json::json!({ "code": close.code, "reason": close.reason });
    out.extend_from_slice(format!("event: close\ndata: {close}\n\n").as_bytes());
}

/// Each line of a text is a field of its own. A carriage return ends a line as a line feed does, so the client finds line feeds.
fn lines(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let end = rest.find(['\n', '\r']);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest.as_bytes()[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { return };
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Position, TopicName};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_text_cannot_leave_its_event() {
        let text = "a\nb\r\nevent: close\rdata: x\n";
        let written = written(|out| message(out, None, MessageRef::Text(text)));
        assert_eq!(written, "data: a\ndata: b\ndata: event: close\ndata: data: x\ndata: \n\n");
        assert_eq!(self::written(|out| message(out, None, MessageRef::Text(""))), "data: \n\n");
    }

    #[test]
    fn ids_are_positions_and_a_lost_history_takes_them_back() {
        let mut positions = Positions::default();
        positions.set(&TopicName::parse("room:blue").unwrap(), Position { epoch: 255, offset: 7 });
        let bytes = written(|out| message(out, Some(&positions), MessageRef::Binary(&[0, 255])));
        assert_eq!(bytes, "id: room:blue=ff.7\nevent: binary\ndata: AP8=\n\n");
        let lost = written(|out| close(out, &Close::new(Close::HISTORY_LOST, "gone")));
        assert_eq!(lost, "id:\nevent: close\ndata: {\"code\":4001,\"reason\":\"gone\"}\n\n");
    }
}
