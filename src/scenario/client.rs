//! A scenario's client: a WebSocket connection to the gateway, as small as it can be.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::message::{MessageRef, SessionId};
use crate::plugin::describe;
use crate::wire::opcode;

/// How long the gateway may take for anything: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer to a handshake.
const HEAD: usize = 64 << 10;

/// The answer to a handshake.
#[derive(Debug, Default)]
pub struct Handshake {
    pub status: u16,
    /// Names in lower case, values of one name joined.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
    pub session: Option<SessionId>,
    /// The connection has ended, from whichever side.
    pub over: bool,
}

impl Client {
    /// Sends a handshake and reads the answer.
    pub async fn connect(
        stream: TcpStream,
        path: &str,
        headers: &[(String, String)],
    ) -> anyhow::Result<(Handshake, Self)> {
        let mut client = Self { stream, read: Vec::new(), session: None, over: false };
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: tidegate.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        client.stream.write_all(request.as_bytes()).await?;
        let handshake = client.handshake().await.context("the answer to the handshake")?;
        Ok((handshake, client))
    }

    async fn handshake(&mut self) -> anyhow::Result<Handshake> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if self.read.len() > HEAD || !self.fill().await? {
                bail!("the gateway does not answer");
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            match headers.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = format!("{known}, {value}"),
                None => headers.push((name, value.to_owned())),
            }
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0);
        while status != 101 && self.read.len() < length && self.fill().await? {}
        let body = if status == 101 { Vec::new() } else { std::mem::take(&mut self.read) };
        Ok(Handshake { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub async fn send(&mut self, message: MessageRef<'_>) -> std::io::Result<()> {
        match message {
            MessageRef::Text(text) => self.frame(opcode::TEXT, text.as_bytes()).await,
            MessageRef::Binary(bytes) => self.frame(opcode::BINARY, bytes).await,
        }
    }

    /// Says goodbye; what the gateway answers is no message.
    pub async fn close(&mut self, code: u16, reason: &str) -> std::io::Result<()> {
        self.over = true;
        self.frame(opcode::CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat()).await
    }

    /// Ends the connection without a word.
    pub fn cut(&mut self) {
        self.over = true;
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
    }

    /// What has come until the gateway has handled all that was sent.
    pub async fn settle(&mut self) -> anyhow::Result<Vec<Value>> {
        let mut received = Vec::new();
        if self.over {
            return Ok(received);
        }
        // A gateway that has closed already does not take this; what it has sent before can be read.
        let _ = self.frame(opcode::PING, b"settled").await;
        loop {
            match self.next().await? {
                Some((opcode::PONG, _)) => return Ok(received),
                Some((opcode::PING, payload)) => drop(self.frame(opcode::PONG, &payload).await),
                Some((opcode::TEXT, payload)) => {
                    received.push(describe::message(MessageRef::Text(&String::from_utf8_lossy(&payload))));
                }
                Some((opcode::CLOSE, payload)) => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    received.push(json!({ "close": code, "reason": reason }));
                    self.cut();
                    return Ok(received);
                }
                Some((_, payload)) => received.push(describe::message(MessageRef::Binary(&payload))),
                None => {
                    received.push(json!({ "close": 1006, "reason": "" }));
                    self.over = true;
                    return Ok(received);
                }
            }
        }
    }

    /// A frame of a client (RFC 6455 section 5.3); a mask of zeros leaves the payload as it is.
    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await
    }

    /// The gateway's next frame, which is whole and not masked; None at the end.
    async fn next(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        loop {
            let (header, length) = match self.read.as_slice() {
                [_, length @ 0..=125, ..] => (2, usize::from(*length)),
                [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                [_, 127, rest @ ..] => match rest.first_chunk() {
                    Some(length) => (10, usize::try_from(u64::from_be_bytes(*length))?),
                    None => (10, usize::MAX),
                },
                [_, _, ..] => (2, 0),
                _ => (2, usize::MAX),
            };
            let end = length.saturating_add(header);
            if self.read.len() >= end {
                let opcode = self.read[0] & 0x0f;
                let payload = self.read[header..end].to_vec();
                self.read.drain(..end);
                return Ok(Some((opcode, payload)));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// False: nothing more will come.
    async fn fill(&mut self) -> anyhow::Result<bool> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        let count = read.context("the gateway does not answer: is a call still waiting for something?")?;
        // An error: the gateway has broken the connection off.
        Ok(count.unwrap_or_default() > 0)
    }
}
