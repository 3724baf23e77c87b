//! Somebody who does not read among others who do.

use std::net::SocketAddr;

use tokio::net::TcpSocket;
use zlib_rs::Inflate;

use super::client::{Client, Raw, TEXT, handshake};
use super::deflate::{COMPRESSED, extensions, inflated, with_offer};
use super::nodes::ready;
use super::{Gateway, until};

const SIZE: usize = 16 << 10;
/// Messages between two looks at the healthy subscriber: together they are smaller than an outbox.
pub(crate) const BATCH: usize = 8;

/// Route `pub`, on which each message is published, and `sub`, whose clients get it; `sub` is more in the table of that.
pub(crate) fn fanout(sub: &str) -> String {
    format!(
        r#"
[[route]]
name = "sub"
path = "/sub"
plugins = ["fanout"]
{sub}

[[route]]
name = "pub"
path = "/pub"
plugins = ["fanout"]

[plugin.fanout.grants]
publish = ["fanout"]
subscribe = ["fanout"]
"#
    )
}

/// The same with outboxes that are soon full, and nothing but the policy that ends a session.
pub(crate) fn config(policy: &str) -> String {
    fanout(&format!(
        r#"
slow_consumer = "{policy}"
heartbeat = {{ interval = "10m", timeout = "10m" }}
limits = {{ outbox = "256KiB", control_rate = 100000000 }}
"#
    ))
}

/// A history that is long enough for everything that a test publishes, or is not.
pub(crate) fn with_history(policy: &str, size: usize) -> String {
    format!("[[topic]]\npattern = \"fanout\"\nhistory = {{ size = {size}, ttl = \"1h\" }}\n{}", config(policy))
}

/// The one who does not read, until it does.
pub(crate) struct Slow {
    raw: Raw,
    /// Where compression with what came before was agreed on.
    inflate: Option<Inflate>,
}

impl Slow {
    async fn connect(address: SocketAddr, compressed: bool) -> Self {
        // Little room in its own kernel, so that it is the gateway's that fills up.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut raw = Raw(socket.connect(address).await.unwrap());
        let mut request = handshake(address, "/sub");
        if compressed {
            request = with_offer(&request, "permessage-deflate");
        }
        raw.send(request.as_bytes()).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(extensions(&head), if compressed { "permessage-deflate" } else { "" });
        Self { raw, inflate: compressed.then(|| Inflate::new(false, 15)) }
    }

    /// The next frame as `Raw::frame`, but never compressed.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, payload) = self.raw.frame().await?;
        match &mut self.inflate {
            Some(inflate) if first == COMPRESSED => Some((TEXT, inflated(inflate, &payload))),
            Some(_) => panic!("{first:x} is not compressed"),
            None => Some((first, payload)),
        }
    }
}

pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    publisher: Client,
    healthy: Client,
    pub(crate) slow: Slow,
    pub(crate) published: usize,
}

impl Scene {
    pub(crate) async fn new(policy: &str) -> Self {
        Self::with(&config(policy)).await
    }

    /// With a configuration of the test's own, made of `config`.
    pub(crate) async fn with(config: &str) -> Self {
        Self::compressed(config, false).await
    }

    /// The same with a slow subscriber who has offered compression.
    pub(crate) async fn compressed(config: &str, compressed: bool) -> Self {
        let gateway = Gateway::start(config).await;
        ready(&gateway).await;
        let healthy = Client::connect(&gateway.ws_url("/sub")).await;
        let publisher = Client::connect(&gateway.ws_url("/pub")).await;
        let slow = Slow::connect(gateway.address(), compressed).await;
        until("both subscriptions", || async {
            (gateway.metric("tidegate_subscriptions", "").await == 2.0).then_some(())
        })
        .await;
        Self { gateway, publisher, healthy, slow, published: 0 }
    }

    /// Publishes some messages and reads them as the healthy subscriber: all of them, in order.
    pub(crate) async fn publish(&mut self) {
        for number in self.published..self.published + BATCH {
            self.publisher.send(&message(number)).await;
        }
        for number in self.published..self.published + BATCH {
            assert_eq!(number_of(&self.healthy.text().await), number, "the healthy subscriber misses nothing");
        }
        self.published += BATCH;
        assert!(self.published < 4096, "64 MiB later, the slow subscriber's outbox still has room");
    }

    pub(crate) async fn publish_until_dropped(&mut self, at_least: f64) -> f64 {
        loop {
            self.publish().await;
            let dropped = self.gateway.metric("tidegate_outbox_dropped_total", "").await;
            if dropped >= at_least {
                return dropped;
            }
        }
    }

    /// How many were dropped, once all that was published has been handed out or dropped.
    pub(crate) async fn dropped(&self) -> usize {
        until("all deliveries", || async {
            let delivered = self.gateway.metric("tidegate_deliveries_total", "").await;
            (delivered as usize == 2 * self.published).then_some(())
        })
        .await;
        self.gateway.metric("tidegate_outbox_dropped_total", "").await as usize
    }

    /// Reads as the slow subscriber, up to this message.
    pub(crate) async fn read_to(&mut self, last: usize) -> Vec<usize> {
        let mut read = Vec::new();
        while read.last() != Some(&last) {
            let (first, payload) = self.slow.frame().await.expect("the session has ended");
            assert_eq!(first, TEXT);
            read.push(number_of(std::str::from_utf8(&payload).unwrap()));
        }
        read
    }
}

/// Its number, and letters that no compression makes much shorter.
fn message(number: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = number as u64 + 1;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 58) as usize])
    };
    format!("{number:08}{}", (8..SIZE).map(letter).collect::<String>())
}

/// Which message it is: the whole of it.
pub(crate) fn number_of(text: &str) -> usize {
    let number = text[..8].parse().unwrap();
    assert!(text == message(number), "message {number} is not what was published");
    number
}
