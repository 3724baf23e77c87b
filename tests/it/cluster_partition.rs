//! A link between a node and Redis that carries nothing, one way only, late, or is cut: row 23 of the table of faults. Nodes
//! know each other by way of Redis alone, so this is a partition between nodes, too.

use std::io::Write as _;
use std::time::Duration;

use crate::support::Gateway;
use crate::support::ledger::{Listener, Speaker, Stop};
use crate::support::link::Link;
use crate::support::nodes::{self, connect, degraded, join, node, ready, say};
use crate::support::redis::{Server, is_installed};
use crate::support::{guests, until};

/// A node that reaches its Redis by this link.
async fn node_behind(link: &Link) -> Gateway {
    let gateway = Gateway::start_with(&nodes::config(&link.url(), ""), &[("relay", guests::relay())]).await;
    ready(&gateway).await;
    gateway
}

/// Two nodes that talk and listen while something is done to the link of the first; afterwards everything is accounted for.
struct Talk {
    stop: Stop,
    listeners: Vec<tokio::task::JoinHandle<Listener>>,
    speakers: Vec<tokio::task::JoinHandle<Speaker>>,
}

impl Talk {
    async fn begin(a: &Gateway, b: &Gateway) -> Self {
        let stop = Stop::default();
        let (mut listeners, mut speakers) = (Vec::new(), Vec::new());
        for (name, gateway) in [("a", a), ("b", b)] {
            listeners.push(Listener::on(gateway, &format!("listener on {name}"), "log:x").await.listens(&stop));
            speakers.push(Speaker::on(gateway, "refuse", name, "log:x").await);
        }
        let speakers = speakers.into_iter().map(|speaker| speaker.speaks(&stop)).collect();
        Self { stop, listeners, speakers }
    }

    /// How many gaps were told; the speakers, on a and on b.
    async fn end(self) -> (usize, Vec<Speaker>) {
        self.stop.now();
        let mut spoke = Vec::new();
        for speaker in self.speakers {
            spoke.push(speaker.await.unwrap());
        }
        let mut gaps = 0;
        for listener in self.listeners {
            let mut listener = listener.await.unwrap();
            listener.until_last_of(&spoke).await;
            listener.check(&spoke);
            gaps += listener.gaps();
        }
        (gaps, spoke)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_reach_redis_refuses_and_has_everything_when_it_can_again() {
    if !is_installed("a partition from Redis") {
        return;
    }
    let server = Server::start().await;
    let link = Link::to(&server).await;
    let (a, b) = (node_behind(&link).await, node(&server).await);
    let talk = Talk::begin(&a, &b).await;
    for _ in 0..2 {
        link.hold();
        assert!(degraded(&a).await.starts_with("degraded: Redis: "));
        let mut here = connect(&a, "refuse").await;
        assert_eq!(here.ask("say log:x-y one").await, "no one");
        // The others do not notice, except that it is gone.
        let mut there = connect(&b, "refuse").await;
        say(&mut there, "log:other", "meanwhile").await;
        assert_eq!(b.admin("/ready").await.0, 200);
        until("a list without the node", || async {
            let nodes: serde_json::Value = serde_json::from_str(&b.admin("/nodes").await.1).unwrap();
            (nodes.as_array().unwrap().len() == 1).then_some(())
        })
        .await;
        assert_eq!(a.admin("/nodes").await.0, 503);
        link.heal();
        ready(&a).await;
    }
    let (gaps, spoke) = talk.end().await;
    assert_eq!(gaps, 0, "the history reaches far enough");
    assert!(spoke[0].refused() > 0);
    assert_eq!(spoke[1].refused(), 0, "b was never apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_carries_one_way_only_is_no_better_than_none_and_loses_nothing() {
    if !is_installed("a one-way link to Redis") {
        return;
    }
    let server = Server::start().await;
    let link = Link::to(&server).await;
    let (a, b) = (node_behind(&link).await, node(&server).await);
    let talk = Talk::begin(&a, &b).await;
    link.hold_answers();
    degraded(&a).await;
    link.heal();
    ready(&a).await;
    let (gaps, spoke) = talk.end().await;
    assert_eq!(gaps, 0);
    assert!(spoke[0].refused() > 0, "Redis has done it and could not say so: refused, and heard by all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_and_refused_for_a_while_loses_nothing() {
    if !is_installed("a link to Redis that is cut") {
        return;
    }
    let server = Server::start().await;
    let link = Link::to(&server).await;
    let (a, b) = (node_behind(&link).await, node(&server).await);
    let talk = Talk::begin(&a, &b).await;
    for _ in 0..5 {
        link.cut();
        degraded(&a).await;
        link.heal();
        ready(&a).await;
    }
    let (gaps, spoke) = talk.end().await;
    assert_eq!(gaps, 0);
    assert_eq!(spoke[1].refused(), 0);
    assert!(a.metric("tidegate_redis_reconnects_total", "").await >= 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_a_refusal_and_a_repeat_with_its_key_is_published_once() {
    if !is_installed("a slow link to Redis") {
        return;
    }
    let server = Server::start().await;
    let link = Link::to(&server).await;
    let (a, b) = (node_behind(&link).await, node(&server).await);
    let (mut on_b, _) = join(&b, "log:x").await;
    let mut client = connect(&a, "refuse").await;
    // Slow, and in time: the timeout of these nodes is 500 ms.
    link.delay(Duration::from_millis(60));
    say(&mut client, "log:x", "slow").await;
    assert_eq!(on_b.text().await, "log:x 1 slow");
    // The probe comes back too late, as well, and the connections are made anew.
    link.delay(Duration::from_millis(450));
    assert_eq!(client.ask("once log:x key late").await, "no late");
    assert_eq!(on_b.text().await, "log:x 2 late", "it was done, which nobody here could know");
    link.heal();
    ready(&a).await;
    assert_eq!(client.ask("once log:x key late").await, "ok late");
    say(&mut client, "log:x", "after").await;
    assert_eq!(on_b.text().await, "log:x 3 after");
}

/// A network namespace with two cables to this one: one to Redis, one for clients. Gone with its value.
struct Namespace {
    name: String,
    number: u32,
}

/// Runs `ip` with these words.
fn ip(words: &str) -> Result<(), String> {
    let output = std::process::Command::new("ip").args(words.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Namespace {
    /// Addresses are of the network for benchmarks (RFC 2544), which no real network uses.
    fn make() -> Result<Self, String> {
        let number = std::process::id() % 250;
        let name = format!("tidegate{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let made = Self { name: name.clone(), number };
        ip(&format!("netns exec {name} ip link set lo up"))?;
        for (cable, network) in [('r', 18), ('c', 19)] {
            let (here, there) = (made.cable(cable), format!("{}n", made.cable(cable)));
            ip(&format!("link add {here} type veth peer name {there} netns {name}"))?;
            ip(&format!("addr add 198.{network}.{number}.1/30 dev {here}"))?;
            ip(&format!("link set {here} up"))?;
            ip(&format!("netns exec {name} ip addr add 198.{network}.{number}.2/30 dev {there}"))?;
            ip(&format!("netns exec {name} ip link set {there} up"))?;
        }
        Ok(made)
    }

    fn cable(&self, which: char) -> String {
        format!("tg{}{which}", std::process::id())
    }

    /// Where Redis is, as both sides see it.
    fn redis(&self) -> String {
        format!("198.18.{}.1", self.number)
    }

    /// Where clients find the gateway in there.
    fn gateway(&self) -> String {
        format!("198.19.{}.2", self.number)
    }

    fn pull(&self) {
        ip(&format!("link set {} down", self.cable('r'))).unwrap();
    }

    fn plug(&self) {
        ip(&format!("link set {} up", self.cable('r'))).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cables go with it.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cable_that_is_pulled_and_plugged_in_again_loses_nothing() {
    if !is_installed("a pulled cable") {
        return;
    }
    let namespace = match Namespace::make() {
        Ok(namespace) => namespace,
        Err(why) => {
            // Straight to the terminal, also in CI: few machines allow it.
            let _ = writeln!(std::io::stderr(), "SKIPPED a pulled cable: no network namespace can be made: {why}");
            return;
        }
    };
    let server = Server::start_with(&["--bind", "127.0.0.1", &namespace.redis(), "--protected-mode", "no"]).await;
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let config = nodes::config(&format!("redis://{}:{port}", namespace.redis()), "");
    let directory = Gateway::prepare(&config, &[("relay", guests::relay())]);
    let a = Gateway::run_behind(&namespace.name, &namespace.gateway(), directory).await;
    ready(&a).await;
    let b = node(&server).await;
    let talk = Talk::begin(&a, &b).await;
    for _ in 0..2 {
        namespace.pull();
        degraded(&a).await;
        namespace.plug();
        ready(&a).await;
    }
    let (gaps, spoke) = talk.end().await;
    assert_eq!(gaps, 0);
    assert!(spoke[0].refused() > 0);
    assert_eq!(spoke[1].refused(), 0);
}
