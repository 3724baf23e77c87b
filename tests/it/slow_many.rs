//! Clients that do not read, one or a thousand: what they cost, and what the others notice of them.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::client::{Client, Raw, TEXT};
use crate::support::slow::fanout;
use crate::support::{Gateway, PATIENCE, until};

const READERS: usize = 1000;
const OUTBOX: usize = 64 << 10;
/// Bytes of a message, and messages: several times what an outbox and the kernel keep for a client.
const SIZE: usize = 4 << 10;
const MESSAGES: usize = 96;
/// What a process needs for other things than outboxes: the sessions themselves, the history, its allocator's arenas.
const BESIDE: usize = 32 << 20;

fn config(policy: &str) -> String {
    let sub = format!(
        r#"
slow_consumer = "{policy}"
heartbeat = {{ interval = "10m", timeout = "10m" }}
limits = {{ outbox = "{OUTBOX}", sessions = 15000 }}
"#
    );
    format!(
        "max_connections = 15000\n[[topic]]\npattern = \"fanout\"\nhistory = {{ size = 1000, ttl = \"1h\" }}\n{}",
        fanout(&sub)
    )
}

struct Stalled {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stalled {
    /// None where there is no Python, which is said.
    async fn connect(gateway: &Gateway, count: usize) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/stalled.py");
        let address = gateway.address();
        let mut command = Command::new("python3");
        command.arg(script).args([address.ip().to_string(), address.port().to_string(), "/sub".to_owned()]);
        command.arg(count.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let Ok(mut process) = command.spawn() else {
            let _ = writeln!(std::io::stdout(), "SKIPPED slow_many: install python3");
            return None;
        };
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut stalled = Self { process, lines };
        assert_eq!(stalled.line().await, "ready");
        Some(stalled)
    }

    async fn line(&mut self) -> String {
        timeout(3 * PATIENCE, self.lines.next_line()).await.expect("it says nothing").unwrap().expect("it has ended")
    }

    /// With which codes they were closed.
    async fn close_codes(mut self) -> String {
        self.process.stdin.take().unwrap().write_all(b"read\n").await.unwrap();
        self.line().await
    }
}

fn message(number: usize) -> String {
    format!("{number:08}{}", "x".repeat(SIZE - 8))
}

/// Publishes more than a thousand stalled readers are kept; somebody who reads misses nothing, and what they cost is bounded.
async fn scene(policy: &str) -> Option<(Gateway, Stalled, [Client; 2])> {
    let gateway = Gateway::start(&config(policy)).await;
    let mut healthy = Client::connect(&gateway.ws_url("/sub")).await;
    let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
    let stalled = Stalled::connect(&gateway, READERS).await?;
    until("all subscriptions", || async {
        (gateway.metric("tidegate_subscriptions", "").await == READERS as f64 + 1.0).then_some(())
    })
    .await;
    let before = gateway.resident();
    for number in 0..MESSAGES {
        publisher.send(&message(number)).await;
        assert_eq!(healthy.text().await, message(number), "{policy}: the one who reads misses something");
    }
    // More often than once where the kernel takes some more of what a reader left to the history has caught up with.
    until("all outboxes to be full", || async {
        (gateway.metric("tidegate_slow_consumers_total", policy).await >= READERS as f64).then_some(())
    })
    .await;
    let after = gateway.resident();
    let growth = after.saturating_sub(before);
    println!("{policy}: {before} bytes before, {after} after: {} for a reader", growth / READERS);
    assert!(growth < READERS * OUTBOX + BESIDE, "{policy}: {growth} bytes for {READERS} stalled readers");
    Some((gateway, stalled, [healthy, publisher]))
}

#[tokio::test]
async fn a_thousand_of_them_are_disconnected_with_their_code() {
    let Some((gateway, stalled, _others)) = scene("disconnect").await else { return };
    assert_eq!(stalled.close_codes().await, format!("{{\"1013\": {READERS}}}"));
    until("all of them to be gone", || async {
        (gateway.metric("tidegate_closes_total", "by=\"gateway\",code=\"1013\"").await == READERS as f64).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_outbox_dropped_total", "").await, 0.0);
}

#[tokio::test]
async fn a_thousand_of_them_lose_the_oldest() {
    let Some((gateway, _stalled, _others)) = scene("drop-oldest").await else { return };
    assert!(gateway.metric("tidegate_outbox_dropped_total", "drop-oldest").await > READERS as f64);
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
}

#[tokio::test]
async fn a_thousand_of_them_are_left_to_the_history() {
    let Some((gateway, _stalled, _others)) = scene("recover").await else { return };
    assert!(gateway.metric("tidegate_outbox_dropped_total", "recover").await > READERS as f64);
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
}

/// Reads so many messages, all of them in order, and says how long each took since it was published.
async fn read(mut raw: Raw, published: Arc<Vec<OnceLock<Instant>>>, came: Arc<AtomicUsize>) -> (Raw, Vec<Duration>) {
    let mut took = Vec::with_capacity(published.len());
    for (number, at) in published.iter().enumerate() {
        let (first, payload) = raw.frame().await.expect("somebody who reads was closed");
        took.push(at.get().expect("it came before it was published").elapsed());
        assert_eq!((first, payload.len(), &payload[..8]), (TEXT, SIZE, format!("{number:08}").as_bytes()));
        came.fetch_add(1, Ordering::Relaxed);
    }
    (raw, took)
}

async fn one_stalled_among(readers: usize) {
    /// Published before the others have all got what was published before: less than an outbox.
    const AT_ONCE: usize = 8;
    let gateway = Gateway::start(&config("disconnect")).await;
    let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
    let published: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..2 * MESSAGES).map(|_| OnceLock::new()).collect());
    let came = Arc::new(AtomicUsize::new(0));
    let mut reading = JoinSet::new();
    for _ in 0..readers {
        let raw = Raw::connect(gateway.address(), "/sub").await;
        reading.spawn(read(raw, published.clone(), came.clone()));
    }
    let subscribed = async |count: usize| {
        until("all subscriptions", || async {
            (gateway.metric("tidegate_subscriptions", "").await == count as f64).then_some(())
        })
        .await;
    };
    subscribed(readers).await;
    let mut _stalled = None;
    for (number, at) in published.iter().enumerate() {
        if number == MESSAGES {
            let Some(one) = Stalled::connect(&gateway, 1).await else { return };
            _stalled = Some(one);
            subscribed(readers + 1).await;
        }
        at.set(Instant::now()).unwrap();
        publisher.send(&message(number)).await;
        if number % AT_ONCE == AT_ONCE - 1 {
            let all = (number + 1) * readers;
            until("all readers", || async { (came.load(Ordering::Relaxed) == all).then_some(()) }).await;
        }
    }
    let (mut before, mut beside) = (Vec::new(), Vec::new());
    let mut still_here = Vec::new();
    while let Some(read) = reading.join_next().await {
        let (raw, took) = read.unwrap();
        before.extend_from_slice(&took[..MESSAGES]);
        beside.extend_from_slice(&took[MESSAGES..]);
        still_here.push(raw);
    }
    // Told for those who look, and not asserted: it is the machine's time.
    for (when, took) in [("before", &mut before), ("beside a stalled one", &mut beside)] {
        took.sort_unstable();
        println!("{readers} readers, {when}: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
    }
    // It may read too late to be told so itself.
    let told = "by=\"gateway\",code=\"1013\"";
    assert_eq!(gateway.metric("tidegate_closes_total", told).await, 1.0);
    assert_eq!(gateway.metric("tidegate_slow_consumers_total", "").await, 1.0);
    assert_eq!(
        gateway.metric("tidegate_closes_total", "").await,
        1.0,
        "one was closed, and it was the one that stalled"
    );
    assert_eq!(gateway.metric("tidegate_outbox_dropped_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_subscriptions", "").await, still_here.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_one_of_them_thousands_miss_nothing() {
    one_stalled_among(2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: ten thousand clients; cargo xtask test --soak"]
async fn beside_one_of_them_ten_thousand_miss_nothing() {
    one_stalled_among(10_000).await;
}
