//! Clients by hand that have offered permessage-deflate.

use tokio::net::TcpStream;
use zlib_rs::{Inflate, InflateFlush};

use super::Gateway;
use super::client::{Raw, TEXT, handshake};

/// The first byte of a compressed message in one frame.
pub(crate) const COMPRESSED: u8 = 0xc1;

/// What is agreed on where each message is compressed by itself.
pub(crate) const ALONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client by hand that has offered compression.
pub(crate) struct Deflated {
    pub(crate) raw: Raw,
    inflate: Inflate,
    /// Whether messages refer to those before them.
    takeover: bool,
}

impl Deflated {
    pub(crate) async fn connect(gateway: &Gateway, path: &str, offer: &str, agreed: &str) -> Self {
        let (raw, head) = offered(gateway, path, offer).await;
        assert_eq!(extensions(&head), agreed, "{offer}");
        let takeover = !agreed.contains("server_no_context_takeover");
        Self { raw, inflate: Inflate::new(false, 15), takeover }
    }

    /// The next message, and whether it was compressed.
    pub(crate) async fn next(&mut self) -> (String, bool) {
        let (first, payload) = self.raw.frame().await.expect("a message");
        assert!(matches!(first, TEXT | COMPRESSED), "{first:x} {payload:x?}");
        if first == TEXT {
            return (String::from_utf8(payload).unwrap(), false);
        }
        if !self.takeover {
            self.inflate.reset(false);
        }
        (String::from_utf8(inflated(&mut self.inflate, &payload)).unwrap(), true)
    }
}

pub(crate) async fn offered(gateway: &Gateway, path: &str, offer: &str) -> (Raw, String) {
    let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
    raw.send(with_offer(&handshake(gateway.address(), path), offer).as_bytes()).await;
    let head = raw.head().await;
    (raw, head)
}

pub(crate) fn extensions(head: &str) -> &str {
    let of = |line: &'_ str| line.to_ascii_lowercase().starts_with("sec-websocket-extensions: ");
    head.lines().find(|line| of(line)).map_or("", |line| &line["sec-websocket-extensions: ".len()..])
}

/// A handshake that offers this.
pub(crate) fn with_offer(handshake: &str, offer: &str) -> String {
    handshake.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"))
}

/// What a compressed message was before.
pub(crate) fn inflated(inflate: &mut Inflate, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 4 << 20];
    let before = inflate.total_out();
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    inflate.decompress(&whole, &mut message, InflateFlush::SyncFlush).expect("it can be inflated");
    message.truncate((inflate.total_out() - before) as usize);
    message
}
