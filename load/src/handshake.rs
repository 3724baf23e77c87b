//! The opening handshake of RFC 6455: what is asked, and what of the answer counts.

use crate::deflate;
use crate::plan::Load;
use crate::target::Target;
use crate::template;

/// The example of RFC 6455, and its answer. The key proves that the server has read it, which needs no randomness.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Of an answer: its head, or the body of a refusal.
const MOST: usize = 32 << 10;

pub fn request(target: &Target, load: &Load, headers: &[(String, String)], number: usize) -> Vec<u8> {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n",
        target.path, target.authority
    );
    if !load.subprotocols.is_empty() {
        text.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", load.subprotocols.join(", ")));
    }
    if load.compression {
        text.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", deflate::OFFER));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    template::numbered(text.as_bytes(), number)
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not all there.
    Partial,
    /// A WebSocket; its frames begin after so many bytes.
    Open {
        used: usize,
        deflate: bool,
    },
    Refused {
        status: u16,
        text: String,
    },
    /// No HTTP, or no WebSocket as the RFC has it.
    Wrong(String),
}

/// Reads an answer. `ended`: nothing more will come.
pub fn answer(bytes: &[u8], load: &Load, ended: bool) -> Answer {
    if !bytes.starts_with(&b"HTTP/1."[..bytes.len().min(7)]) {
        return Answer::Wrong("it answered the handshake with something that is not HTTP/1.1".to_owned());
    }
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return match (ended, bytes.len() > MOST) {
            (true, _) => Answer::Wrong("it closed the connection within its answer to the handshake".to_owned()),
            (false, true) => Answer::Wrong("its answer to the handshake has more than 32 KiB of headers".to_owned()),
            (false, false) => Answer::Partial,
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let Some(status) = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()) else {
        return Answer::Wrong(format!("it answered the handshake with {status_line:?}"));
    };
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |name: &str| headers.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
    if status != 101 {
        let body = &bytes[end + 4..];
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0usize);
        let is_chunked = header("transfer-encoding").is_some();
        let has_all = if is_chunked { body.ends_with(b"0\r\n\r\n") } else { body.len() >= length };
        if !ended && !has_all && body.len() < MOST {
            return Answer::Partial;
        }
        return Answer::Refused { status, text: refusal(status_line, body, is_chunked) };
    }
    let is = |name: &str, wanted: &str| header(name).is_some_and(|value| value.to_ascii_lowercase().contains(wanted));
    if !is("upgrade", "websocket") || !is("connection", "upgrade") {
        return Answer::Wrong("its 101 upgrades to something that is not a WebSocket".to_owned());
    }
    if header("sec-websocket-accept").map(str::as_bytes) != Some(ACCEPT) {
        return Answer::Wrong("its Sec-WebSocket-Accept does not belong to the key that was sent".to_owned());
    }
    if let Some(chosen) = header("sec-websocket-protocol")
        && !load.subprotocols.iter().any(|offered| offered == chosen)
    {
        return Answer::Wrong(format!("it chose the subprotocol {chosen:?}, which was not offered"));
    }
    let extensions = header("sec-websocket-extensions").unwrap_or_default();
    let deflate = extensions.contains("permessage-deflate");
    let is_offered = deflate && load.compression && !extensions.contains(',');
    if !extensions.is_empty() && !is_offered {
        return Answer::Wrong(format!("it uses extensions that were not offered: {extensions}"));
    }
    if deflate && !extensions.contains("server_no_context_takeover") {
        return Answer::Wrong(format!(
            "it wants to keep its compressor's context, which was not offered: {extensions}"
        ));
    }
    Answer::Open { used: end + 4, deflate }
}

/// `403 Forbidden: origin not allowed`: the status, and what the body says first.
fn refusal(status_line: &str, body: &[u8], is_chunked: bool) -> String {
    let status = status_line.split_once(' ').map_or(status_line, |(_, status)| status).trim();
    let body = String::from_utf8_lossy(body);
    let mut lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    if is_chunked {
        // The first chunk's size.
        lines.next();
    }
    match lines.next() {
        Some(first) => {
            let short: String = first.chars().filter(|char| !char.is_control()).take(160).collect();
            format!("it answered the handshake with {status}: {short}")
        }
        None => format!("it answered the handshake with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn load() -> Load {
        Load { compression: true, subprotocols: vec!["chat".into()], ..Load::new("ws://h/", Kind::Idle) }
    }

    #[test]
    fn an_answer_is_whole_or_awaited() {
        let text = format!("{GOOD}Sec-WebSocket-Protocol: chat\r\n\r\n");
        for cut in 0..text.len() {
            assert_eq!(answer(&text.as_bytes()[..cut], &load(), false), Answer::Partial, "{cut}");
        }
        let more = format!("{text}\u{1}\u{2}");
        assert_eq!(answer(more.as_bytes(), &load(), false), Answer::Open { used: text.len(), deflate: false });
    }

    #[test]
    fn what_was_not_offered_is_not_taken() {
        let with = |lines: &str| answer(format!("{GOOD}{lines}\r\n").as_bytes(), &load(), false);
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        assert!(matches!(with(deflate), Answer::Open { deflate: true, .. }));
        for lines in [
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            "Sec-WebSocket-Extensions: other\r\n",
            "Sec-WebSocket-Protocol: other\r\n",
        ] {
            assert!(matches!(with(lines), Answer::Wrong(_)), "{lines}");
        }
        let plain = Load { compression: false, ..load() };
        assert!(matches!(answer(format!("{GOOD}{deflate}\r\n").as_bytes(), &plain, false), Answer::Wrong(_)));
        assert!(matches!(answer(b"SSH-2.0-OpenSSH", &load(), false), Answer::Wrong(_)));
    }

    #[test]
    fn a_refusal_says_what_its_body_says() {
        let text = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\nnot\x07 you\nmore";
        let told =
            Answer::Refused { status: 403, text: "it answered the handshake with 403 Forbidden: not you".into() };
        assert_eq!(answer(text, &load(), false), told);
        assert_eq!(answer(&text[..50], &load(), false), Answer::Partial);
        let chunked = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n";
        let told = Answer::Refused { status: 503, text: "it answered the handshake with 503 Busy: full".into() };
        assert_eq!(answer(chunked, &load(), false), told);
    }
}
