//! Guests that misbehave: each harms its own event and nothing else, and is counted by why it failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "hostile"
path = "/hostile"
plugins = ["hostile"]

[[route]]
name = "strict"
path = "/strict"
plugins = ["hostile"]
failed_event = "close"

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]

[plugin.hostile]
limits = { memory = "1MiB", output = "512KiB" }
"#;

/// How a message misbehaves (see hostile.wat), and what that is counted as.
const WAYS: [(&str, &str); 11] = [
    ("trap", "trap"),
    ("loop for ever", "cpu"),
    ("memory bomb", "memory"),
    ("recursion", "stack"),
    ("error", "error"),
    ("sends for ever", "effects"),
    ("pointer out of bounds", "trap"),
    ("host calls for ever", "host_calls"),
    ("wrong session", "trap"),
    ("Bomb of table elements", "tables"),
    ("Output for ever", "output"),
];

async fn failures(gateway: &Gateway, why: &str) -> f64 {
    let label = format!("hook=\"inbound\",plugin=\"hostile\",why=\"{why}\"");
    gateway.metric("tidegate_plugin_call_failures_total", &label).await
}

async fn start() -> Gateway {
    Gateway::start_with(CONFIG, &[("hostile", wat("hostile", &[]))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_harms_its_own_event_alone() {
    each_alone(start().await).await;
}

/// The same guest on a stack of its own, which a plugin has that imports what may wait.
#[tokio::test(flavor = "multi_thread")]
async fn each_harms_its_own_event_alone_where_calls_may_wait() {
    let clock = r#"(import "tidegate:plugin/clock@0.1.0" "now" (func $now (result i64)))"#;
    let presence = r#"(import "tidegate:plugin/presence@0.1.0" "has-user" (func (param i32 i32 i32 i32 i32)))"#;
    let guest = wat("hostile", &[(clock, &format!("{clock}\n  {presence}"))]);
    let gateway = Gateway::start_with(CONFIG, &[("hostile", guest)]).await;
    let (_, plugins) = gateway.admin("/plugins").await;
    let plugins: serde_json::Value = serde_json::from_str(&plugins).unwrap();
    let hostile = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "hostile").unwrap();
    assert_eq!(hostile["waits"], true);
    each_alone(gateway).await;
}

async fn each_alone(gateway: Gateway) {
    // Another route's client asks all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let mut neighbour = Client::connect(&gateway.ws_url("/echo")).await;
    let served = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut served = 0;
            while !stop.load(Ordering::Relaxed) {
                let text = format!("question {served}");
                assert_eq!(neighbour.ask(&text).await, text);
                served += 1;
            }
            (served, neighbour)
        }
    });
    let mut client = Client::connect(&gateway.ws_url("/hostile")).await;
    for (count, (message, why)) in WAYS.iter().enumerate() {
        let before = failures(&gateway, why).await;
        client.send(message).await;
        // The guest has sent the message back before it failed; the next answer must be the next message's.
        let next = format!("a well-behaved message after {message}");
        assert_eq!(client.ask(&next).await, next, "{message}");
        assert_eq!(failures(&gateway, why).await, before + 1.0, "{message} is counted as {why}");
        let failed = gateway.metric("tidegate_events_failed_total", "event=\"inbound\",route=\"hostile\"").await;
        assert_eq!(failed, (count + 1) as f64, "{message}");
    }
    stop.store(true, Ordering::Relaxed);
    let (served, _neighbour) = served.await.unwrap();
    assert!(served > WAYS.len(), "the neighbour was not served meanwhile");
    assert_eq!(gateway.metric("tidegate_messages_sent_total", "hostile").await, WAYS.len() as f64);
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
    gateway.log_line(&["the event failed", "\"plugin\":\"hostile\"", "a sentence for the operator"]).await;
    gateway.log_line(&["the event failed", "over the CPU budget"]).await;
    gateway.log_line(&["the event failed", "out of memory"]).await;
    gateway.log_line(&["the event failed", "out of stack (`plugin_stack`)"]).await;
    gateway.log_line(&["the event failed", "out of table elements (`tables`)"]).await;
    gateway.log_line(&["the event failed", "over the quota of bytes (`output`)"]).await;
}

#[tokio::test]
async fn what_was_harmed_is_thrown_away_and_made_anew() {
    let gateway = start().await;
    let mut client = Client::connect(&gateway.ws_url("/hostile")).await;
    for round in 0..100 {
        client.send("trap").await;
        let text = format!("a good one {round}");
        assert_eq!(client.ask(&text).await, text);
    }
    assert_eq!(failures(&gateway, "trap").await, 100.0);
    assert_eq!(gateway.metric("tidegate_plugin_instances", "hostile").await, 1.0, "dead instances are kept");
}

#[tokio::test]
async fn a_strict_route_tells_the_client() {
    let gateway = start().await;
    for (count, (message, _)) in WAYS.iter().enumerate() {
        let mut client = Client::connect(&gateway.ws_url("/strict")).await;
        assert_eq!(client.ask("a good one").await, "a good one");
        client.send(message).await;
        let code = client.closed_after(|text| panic!("{text:?} arrived, which a failed call sent")).await;
        assert_eq!(code, Some(1011), "{message}");
        let closes = gateway.metric("tidegate_closes_total", "by=\"gateway\",code=\"1011\",route=\"strict\"").await;
        assert_eq!(closes, (count + 1) as f64);
    }
    until("the places", || async { (gateway.metric("tidegate_sessions", "strict").await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn many_at_once_leave_the_process_as_it_was() {
    let gateway = start().await;
    let mut neighbour = Client::connect(&gateway.ws_url("/echo")).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&gateway.ws_url("/hostile")).await);
    }
    for (message, why) in WAYS {
        let before = failures(&gateway, why).await;
        for client in &mut clients {
            client.send(message).await;
        }
        assert_eq!(neighbour.ask(message).await, message);
        for client in &mut clients {
            assert_eq!(client.ask("a good one").await, "a good one", "{message}");
        }
        assert_eq!(failures(&gateway, why).await, before + 20.0, "{message}");
    }
    // What the bombs took has been given back: each had a megabyte, at most.
    assert!(gateway.metric("tidegate_plugin_instances", "hostile").await <= 20.0);
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
}

#[tokio::test]
async fn what_a_guest_says_when_it_panics_reaches_the_log() {
    const ROUTE: &str = "[[route]]\nname = \"p\"\npath = \"/p\"\nplugins = [\"panics\"]\n";
    let panics = std::fs::read(crate::support::guests::panics()).unwrap();
    let gateway = Gateway::start_with(ROUTE, &[("panics", panics)]).await;
    let mut client = Client::connect(&gateway.ws_url("/p")).await;
    client.send("the carpet").await;
    let said = "tests/guests/panics/src/lib.rs:";
    let told = ["\"plugin\":\"panics\"", "\"generation\":1", "\"hook\":\"inbound\""];
    gateway.log_line(&[&told[..], &["\"level\":\"ERROR\"", said, "stumbled over \\\"the carpet\\\""]].concat()).await;
    let functions = "(in panics::stumble < <panics::Panics as tidegate_sdk::plugin::Plugin>::inbound";
    gateway.log_line(&[&told[..], &["the event failed", "unreachable", functions]].concat()).await;
}
