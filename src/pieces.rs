//! The hot pieces by themselves, for `benches/pieces.rs`: there in tests and with the feature `pieces` only.

#![allow(clippy::unwrap_used, reason = "whoever measures wants to know at once, and nobody else calls this")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use thin_vec::ThinVec;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::broker::{Broker, MemoryBroker, Retention};
use crate::config::{BatchConfig, Config, Overflow};
use crate::hub::{self, Audience, Hub, Shaped};
use crate::message::{Message, MessageRef, Publication, SessionId, TopicName};
use crate::metrics::Metrics;
use crate::outbox::{Line, Mailbox, Outbox, SlowCounters};
use crate::plugin::inside::{self, Code, Instance, Template, encoded};
use crate::plugin::{BATCH_MAX, Event, Patience};
use crate::route::{Route, Rules};
use crate::source::{Clock, Random};
use crate::state::{Handshake, SessionState};
use crate::transport::websocket::{Decoder, Flow, Frame};
use crate::wire::deflate::{self, Compression};
use crate::wire::{self, FIN, RSV1, opcode};

/// Frames that are decoded and encoded together: what one read of a busy client brings.
const FRAMES: usize = 16;
const SMALL: usize = 64;
const LARGE: usize = 16 << 10;
const LIMIT: usize = 1 << 20;
const SUBSCRIBERS: usize = 1_000;
const HOW: Compression = Compression { window: 15, level: 6, threshold: 0 };

/// Something that is measured.
pub struct Piece {
    pub name: &'static str,
    /// What one run of it comes to: messages, or deliveries.
    pub units: u64,
    run: Box<dyn FnMut()>,
}

impl Piece {
    fn new(name: &'static str, units: usize, run: impl FnMut() + 'static) -> Self {
        Self { name, units: units as u64, run: Box::new(run) }
    }

    pub fn run(&mut self) {
        (self.run)();
    }
}

/// All of them. `echo` is the file of the plugin `echo`.
pub fn all(echo: &[u8]) -> Vec<Piece> {
    vec![
        decode("decode 16 × 64 B", FRAMES, SMALL),
        decode("decode 16 KiB", 1, LARGE),
        encode("encode 16 × 64 B", FRAMES, SMALL),
        encode("encode 16 KiB", 1, LARGE),
        compress("deflate 512 B"),
        inflate("inflate 512 B"),
        fan_out("fan-out to 1,000"),
        call(echo, "plugin, one message", 1),
        call(echo, "plugin, 16 in a batch", BATCH_MAX),
    ]
}

/// Frames as a client sends them, masked.
fn decode(name: &'static str, count: usize, size: usize) -> Piece {
    let mut sent = Vec::new();
    for number in 0..count {
        let mut frame = Vec::new();
        wire::frame(&mut frame, opcode::TEXT, &vec![b'a'; size]);
        let head = frame.len() - size;
        frame[1] |= 0x80;
        let mask = [7, number as u8, 99, 3];
        let payload: Vec<u8> = frame[head..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        sent.extend_from_slice(&frame[..head]);
        sent.extend(mask);
        sent.extend(payload);
    }
    let (mut read, mut decoder) = (sent.clone(), Decoder::default());
    Piece::new(name, count, move || {
        // They are unmasked where they lie.
        read.copy_from_slice(&sent);
        let mut messages = 0;
        let fed = decoder.feed(&mut read, LIMIT, |frame| {
            messages += usize::from(matches!(frame, Frame::Message(message) if message.len() == size));
            Flow::Next
        });
        assert!(fed.is_ok() && messages == count);
    })
}

fn encode(name: &'static str, count: usize, size: usize) -> Piece {
    let (text, mut out) = ("a".repeat(size), Vec::new());
    Piece::new(name, count, move || {
        out.clear();
        for _ in 0..count {
            wire::message(&mut out, MessageRef::Text(&text));
        }
        assert!(out.len() > count * size);
    })
}

/// JSON of that size, as chats send it.
fn json() -> String {
    let mut text = r#"{"type":"say","room":"lobby","members":["#.to_owned();
    for number in 0..15 {
        text += &format!(r#"{{"user":"user-{}","away":false}},"#, number * 31 % 97);
    }
    text.truncate(510);
    text + "]}"
}

fn compress(name: &'static str) -> Piece {
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    wire::frame(&mut frame, opcode::TEXT, json().as_bytes());
    Piece::new(name, 1, move || {
        out.clear();
        let sizes = deflate::compress(&mut out, &frame, HOW);
        assert!(sizes.compressed < sizes.plain);
    })
}

fn inflate(name: &'static str) -> Piece {
    let (mut frame, mut packed) = (Vec::new(), Vec::new());
    wire::frame(&mut frame, opcode::TEXT, json().as_bytes());
    deflate::compress(&mut packed, &frame, HOW);
    assert_eq!(packed[0], FIN | RSV1 | opcode::TEXT);
    let head = if packed[1] < 126 { 2 } else { 4 };
    let payload = packed.split_off(head);
    let size = json().len();
    Piece::new(name, 1, move || {
        let plain = deflate::inflated(None, &payload, LIMIT, <[u8]>::len);
        assert!(matches!(plain, Ok(plain) if plain == size));
    })
}

struct Plain;

impl Audience for Plain {
    fn is_special(&self) -> bool {
        false
    }

    fn one_by_one(&self) -> bool {
        false
    }

    fn window(&self) -> Option<BatchConfig> {
        None
    }

    fn shape<'a>(&'a self, _: &'a Arc<Publication>) -> Pin<Box<dyn Future<Output = Shaped> + Send + 'a>> {
        Box::pin(async { Shaped::Nothing })
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One publication, into the outboxes of all and out of them: the hub without a kernel.
fn fan_out(name: &'static str) -> Piece {
    let runtime = runtime();
    let metrics = Arc::new(Metrics::new());
    let (clock, random) = (Clock::default(), Random::seeded(1));
    let broker = Broker::Memory(MemoryBroker::new(LIMIT, clock, random));
    let hub = Arc::new(Hub::new(broker, metrics.clone()));
    let topic = TopicName::parse("fanout").unwrap();
    let audience: Arc<dyn Audience> = Arc::new(Plain);
    let outboxes: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let id = SessionId { node: 1, number: number as u64 };
            let mailbox = Mailbox::new(id, Default::default(), Instant::now());
            let slow = SlowCounters::new(&metrics, "fanout", Overflow::Disconnect);
            let line = Line::Fetched(Box::new(mailbox));
            let outbox = Arc::new(Outbox::new(id, line, LIMIT, Overflow::Disconnect, false, None, slow));
            hub.subscribe(&topic, &outbox, &audience, hub::From::Now).unwrap();
            outbox
        })
        .collect();
    let publication = Publication {
        topic,
        message: Message::Text("a".repeat(SMALL).into()),
        position: None,
        time: 1,
        key: None,
        metadata: Vec::new(),
        exclude: Vec::new(),
    };
    Piece::new(name, SUBSCRIBERS, move || {
        runtime.block_on(async {
            assert!(hub.publish(publication.clone(), Retention::default(), None).is_ok());
            hub.flushed().await;
        });
        let mut context = Context::from_waker(Waker::noop());
        for outbox in &outboxes {
            assert!(outbox.poll_fetch(&mut context, LIMIT).is_ready());
        }
    })
}

/// A call of the plugin `echo`, which sends each message back: what of it is not the data path's.
fn call(echo: &[u8], name: &'static str, count: usize) -> Piece {
    const CONFIG: &str = "[[route]]\nname = \"echo\"\npath = \"/echo\"\nplugins = [\"echo\"]\n[plugin.echo]\n";
    let config: Config = toml::from_str(CONFIG).unwrap();
    let runtime = runtime();
    let node = {
        let _entered = runtime.enter();
        crate::node(&config, Clock::by_hand(1), Random::seeded(1), None).unwrap()
    };
    let engine = crate::plugin::engine(crate::plugin::Room::of(&Default::default())).unwrap();
    let (template, _) = Template::new(&engine, &Code::new(&engine, echo, &encoded(echo).unwrap()).unwrap()).unwrap();
    let context = Arc::new(inside::Context::new("echo", 1, &config.plugins["echo"], node.clone()));
    let mut instance = runtime.block_on(Instance::new(&template, &context)).unwrap();
    let id = SessionId { node: 1, number: 1 };
    let state = SessionState {
        id,
        route: Arc::new(Route::new("echo", Rules::new(&config.routes[0]), &node.metrics)),
        transport: "websocket",
        user: None,
        subprotocol: None,
        attributes: ThinVec::new(),
        handshake: Handshake::new("/echo", IpAddr::V4(Ipv4Addr::LOCALHOST), Vec::new(), Vec::new()),
        subscriptions: ThinVec::new(),
        timers: ThinVec::new(),
        expiry: None,
        counted: None,
    };
    let mut event =
        Some(Box::new(Event { session: Some(Box::new(state)), patience: Patience::None, ..Event::default() }));
    let payload = Bytes::from("a".repeat(SMALL));
    Piece::new(name, count, move || {
        let _entered = runtime.enter();
        let text = std::str::from_utf8(&payload).unwrap();
        match count {
            1 => drop(instance.inbound_now(1, MessageRef::Text(text), &mut event).unwrap()),
            _ => drop(instance.batch_now(1, &vec![MessageRef::Text(text); count], &mut event).unwrap()),
        }
        let event = event.as_mut().unwrap();
        assert_eq!(event.effects.list.len(), count);
        event.effects.list.clear();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_does_its_work() {
        // The plugin's file is built after this test: an echo in the text format has no batch.
        for mut piece in [
            decode("", FRAMES, SMALL),
            decode("", 1, LARGE),
            encode("", FRAMES, SMALL),
            compress(""),
            inflate(""),
            fan_out(""),
        ] {
            piece.run();
            piece.run();
        }
    }
}
