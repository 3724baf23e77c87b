//! Clients that come by requests: an event stream, and polls.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use super::http::{Answer, ask};

/// One event, as EventSource would dispatch it, or would only remember its id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Option<String>,
}

/// A client of an event stream.
pub(crate) struct Events {
    stream: TcpStream,
    address: SocketAddr,
    path: String,
    pub(crate) status: u16,
    pub(crate) head: String,
    /// What has come of the body and was not yet read as events.
    text: String,
    raw: Vec<u8>,
    /// Sent with each message.
    pub(crate) token: String,
    /// As EventSource keeps it.
    pub(crate) last_id: String,
    pub(crate) comments: usize,
}

impl Events {
    /// Waits for the head of the answer. `headers` end in line breaks.
    pub(crate) async fn ask(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let read = timeout(PATIENCE, stream.read_buf(&mut raw)).await.expect("no answer").unwrap();
            assert!(read > 0, "the connection ended without an answer");
        };
        let head = String::from_utf8(raw.drain(..end).collect()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let path = path.split('?').next().unwrap().to_owned();
        let (text, token, last_id) = Default::default();
        Self { stream, address, path, status, head, text, raw, token, last_id, comments: 0 }
    }

    /// The same, until the session is there.
    pub(crate) async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut events = Self::ask(address, path, headers).await;
        assert_eq!(events.status, 200, "{}", events.head);
        assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
        let session = events.event().await;
        assert_eq!(session.kind, "session");
        let told: Value = serde_json::from_str(&session.data.unwrap()).unwrap();
        events.token = told["session"].as_str().unwrap().to_owned();
        events
    }

    /// More of the body; false at its end, which must be a proper one.
    async fn more(&mut self) -> bool {
        loop {
            if let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") {
                let size = std::str::from_utf8(&self.raw[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if self.raw.len() >= line + 2 + size + 2 {
                    let chunk: Vec<u8> = self.raw.drain(..line + 2 + size + 2).skip(line + 2).take(size).collect();
                    self.text += std::str::from_utf8(&chunk).unwrap();
                    return size > 0;
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.raw)).await.expect("nothing comes").unwrap();
            assert!(read > 0, "the body was broken off");
        }
    }

    /// The next event, or what only sets the id.
    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("the stream has ended")
    }

    /// None: the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let mut event = Event { kind: "message".to_owned(), ..Event::default() };
                let mut is_comment = true;
                for line in block.lines().filter(|line| !line.is_empty()) {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    is_comment &= name.is_empty();
                    match name {
                        "" => self.comments += 1,
                        "id" => event.id = Some(value.to_owned()),
                        "event" => value.clone_into(&mut event.kind),
                        "data" => match &mut event.data {
                            Some(data) => *data += &format!("\n{value}"),
                            None => event.data = Some(value.to_owned()),
                        },
                        "retry" => assert!(value.parse::<u32>().is_ok(), "{block}"),
                        _ => panic!("{block}"),
                    }
                }
                if let Some(id) = &event.id {
                    id.clone_into(&mut self.last_id);
                }
                if !is_comment {
                    return Some(event);
                }
            }
            if !self.more().await {
                assert_eq!(self.text, "", "the end is in the middle of an event");
                return None;
            }
        }
    }

    /// The data of the next event that has any.
    pub(crate) async fn data(&mut self) -> String {
        loop {
            if let Some(data) = self.event().await.data {
                return data;
            }
        }
    }

    /// Sends a message, and waits until the session has taken it.
    pub(crate) async fn say(&self, text: &str) {
        let answer = post(self.address, &self.path, &self.token, text).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    }

    /// Sends a message, and returns the answer.
    pub(crate) async fn ask_for(&mut self, text: &str) -> String {
        self.say(text).await;
        self.data().await
    }

    /// Waits for a comment, which keeps a quiet stream alive.
    pub(crate) async fn comment(&mut self) {
        let before = self.comments;
        while !self.text.contains(":\n\n") && self.comments == before {
            assert!(self.more().await, "the stream has ended");
        }
    }
}

/// A message of the session with this token.
pub(crate) async fn post(address: SocketAddr, path: &str, token: &str, text: &str) -> Answer {
    ask(address, "POST", path, &[("Tidegate-Session", token), ("Content-Type", "text/plain")], text).await
}

/// A client that polls.
pub(crate) struct Polls {
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) next: u64,
    waiting: Vec<Value>,
    pub(crate) close: Option<Value>,
    pub(crate) last_id: Option<String>,
}

impl Polls {
    pub(crate) async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut all = vec![("Tidegate-Transport", "long-poll")];
        all.extend(headers);
        let answer = ask(address, "POST", path, &all, "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.json();
        assert_eq!(told["messages"], serde_json::json!([]));
        let path = path.split('?').next().unwrap().to_owned();
        let token = told["session"].as_str().unwrap().to_owned();
        Self { path, token, next: told["next"].as_u64().unwrap(), waiting: Vec::new(), close: None, last_id: None }
    }

    /// One poll, by way of any node.
    pub(crate) async fn poll(&self, address: SocketAddr, after: u64) -> Answer {
        let path = format!("{}?after={after}", self.path);
        timeout(2 * PATIENCE, ask(address, "GET", &path, &[("Tidegate-Session", &self.token)], "")).await.unwrap()
    }

    /// The next message; polls for it where none waits.
    pub(crate) async fn text(&mut self, address: SocketAddr) -> String {
        loop {
            if !self.waiting.is_empty() {
                let message = self.waiting.remove(0);
                if let Some(id) = message["id"].as_str() {
                    self.last_id = Some(id.to_owned());
                }
                if let Some(text) = message["text"].as_str() {
                    return text.to_owned();
                }
                continue;
            }
            assert_eq!(self.close, None, "the session has ended");
            self.fetch(address).await;
        }
    }

    /// One poll, whose messages wait then.
    pub(crate) async fn fetch(&mut self, address: SocketAddr) {
        let answer = self.poll(address, self.next).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.json();
        self.next = told["next"].as_u64().unwrap();
        self.waiting.extend(told["messages"].as_array().unwrap().iter().cloned());
        self.close = told.get("close").cloned();
    }

    /// Why the session has ended.
    pub(crate) async fn closed(&mut self, address: SocketAddr) -> u64 {
        while self.close.is_none() {
            self.fetch(address).await;
        }
        self.close.as_ref().unwrap()["code"].as_u64().unwrap()
    }

    pub(crate) async fn say(&self, address: SocketAddr, text: &str) {
        let answer = post(address, &self.path, &self.token, text).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    }
}
