//! Clients: one by a library that keeps the rules, one by hand that need not.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::PATIENCE;

/// A WebSocket client.
pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        Self::try_connect(url, &[]).await.unwrap_or_else(|status| panic!("{url}: refused with {status}"))
    }

    /// With more headers; the error is the HTTP status of a refusal.
    pub(crate) async fn try_connect(url: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            let name = tokio_tungstenite::tungstenite::http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        match timeout(PATIENCE, connect_async(request)).await.expect("no answer to the handshake") {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn send_json(&mut self, value: Value) {
        self.send(&value.to_string()).await;
    }

    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// Sends to a gateway that may have closed already, which the test will see when it reads.
    pub(crate) async fn try_send(&mut self, text: &str) {
        let _ = self.0.send(Message::text(text)).await;
    }

    /// Sends a text and expects a text back.
    pub(crate) async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.text().await
    }

    /// The next message, whatever it is; None after the end.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("nothing comes") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next message, which must be text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("a text was expected, not {other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next message of this `type`; others before it are thrown away.
    pub(crate) async fn json_of_type(&mut self, kind: &str) -> Value {
        loop {
            let value = self.json().await;
            if value["type"] == kind {
                return value;
            }
        }
    }

    /// Reads to the end and returns the close code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        self.closed_after(|_| {}).await
    }

    /// The same, with the texts that come before.
    pub(crate) async fn closed_after(&mut self, mut on: impl FnMut(String)) -> Option<u16> {
        let mut code = None;
        while let Some(message) = self.next().await {
            match message {
                Message::Close(frame) => code = frame.map(|frame| CloseCode::into(frame.code)),
                Message::Text(text) => on(text.as_str().to_owned()),
                other => panic!("a text was expected, not {other:?}"),
            }
        }
        code
    }

    pub(crate) async fn close(mut self) {
        let _ = self.0.close(None).await;
        while self.next().await.is_some() {}
    }

    /// The stream itself, for what this type does not do.
    pub(crate) fn into_inner(self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        self.0
    }
}

/// A client by hand: it sends what it is told to.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// After a proper handshake on a path.
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::begin(stream, &handshake(address, path)).await
    }

    /// Sends a request on a connection that is there, which must be answered by 101.
    pub(crate) async fn begin(stream: TcpStream, request: &str) -> Self {
        let mut raw = Self(stream);
        raw.send(request.as_bytes()).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    /// The head of an HTTP answer, with its last empty line.
    pub(crate) async fn head(&mut self) -> String {
        self.try_head().await.expect("closed without an answer")
    }

    /// The same; None where the connection ends first.
    pub(crate) async fn try_head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, self.0.read_u8()).await.expect("no answer").ok()?);
        }
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The gateway may have closed already, which the test will see when it reads.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame's first byte and payload; None at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        read_frame(&mut self.0).await
    }

    /// Reads to the close frame and returns its code; None: the stream ends without one, or it has no code.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        while let Some((first, payload)) = self.frame().await {
            if first == CLOSE {
                return payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
            }
        }
        None
    }

    /// Whether the stream ends here.
    pub(crate) async fn is_over(&mut self) -> bool {
        !matches!(timeout(PATIENCE, self.0.read_u8()).await, Err(_) | Ok(Ok(_)))
    }
}

/// The next frame of a gateway's, as `Raw::frame`.
pub(crate) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let reading = async {
        let first = from.read_u8().await?;
        let len = match from.read_u8().await? {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            len => u64::from(len),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        from.read_exact(&mut payload).await?;
        std::io::Result::Ok((first, payload))
    };
    timeout(PATIENCE, reading).await.expect("no frame comes").ok()
}

/// First bytes of whole frames.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// A proper handshake, for a test to change.
pub(crate) fn handshake(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A masked frame; `first` is the first byte: 0x81 a whole text, 0x82 a whole binary.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Sends a request as it is and returns everything that comes back.
pub(crate) async fn request(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the answer does not end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and body of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path, "").await
}

/// Status and body of a POST with more headers, each with its line end.
pub(crate) async fn post(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    ask(address, "POST", path, &format!("Content-Length: 0\r\n{headers}")).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    let answer = request(address, &head).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// The next message on a socket over whatever stream, but for pings and pongs; None at its end.
pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Option<Message> {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("nothing comes") {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return Some(message),
            Some(Err(_)) | None => return None,
        }
    }
}

/// Sends a text on a socket over whatever stream, and returns the text that comes back.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    match next(socket).await {
        Some(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("a text was expected, not {other:?}"),
    }
}
