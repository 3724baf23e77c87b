//! A second file on copies of the calls: what it would do is compared, counted and thrown away.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "one"
path = "/one"
plugins = ["one"]

[plugin.one]
grants = { kv = [""] }
shadow = { file = "next.wasm" }
"#;
const MESSAGES: usize = 10;

async fn page(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.admin("/plugins/one/shadow").await.1).unwrap()
}

/// Waits until so many calls were compared.
async fn compared(gateway: &Gateway, calls: u64) -> Value {
    until("the comparisons", || async {
        let page = page(gateway).await;
        let sum: u64 = ["same", "different", "dropped"].iter().filter_map(|count| page[*count].as_u64()).sum();
        (sum == calls).then_some(page)
    })
    .await
}

async fn results(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("tidegate_plugin_shadow_calls_total", &format!("plugin=\"one\",result=\"{result}\"")).await
}

#[tokio::test]
async fn differences_are_counted_and_shown_and_nobody_else_sees_them() {
    let other = wat("mark", &[("65 (; the mark ;)", "66")]);
    let gateway = Gateway::start_with(CONFIG, &[("one", wat("mark", &[])), ("next", other)]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..MESSAGES {
        assert_eq!(client.ask("_ide").await, "Aide");
    }
    let shown = compared(&gateway, MESSAGES as u64).await;
    assert_eq!((&shown["same"], &shown["different"]), (&0.into(), &(MESSAGES as u64).into()));
    assert_eq!((results(&gateway, "same").await, results(&gateway, "different").await), (0.0, MESSAGES as f64));
    let sample = &shown["samples"][0];
    assert_eq!(sample["hook"], "inbound");
    assert!(sample["serving"].as_str().unwrap().contains("Aide"), "{sample}");
    assert!(sample["shadow"].as_str().unwrap().contains("Bide"), "{sample}");
    // Its calls are counted as its own.
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "plugin=\"one\"").await, MESSAGES as f64);
    assert_eq!(gateway.metric("tidegate_messages_sent_total", "").await, MESSAGES as f64);

    gateway.replace("next", &wat("mark", &[("(i32.const 2))   ;; stop", "(i32.const 2))")]));
    until("the next shadow", || async { (page(&gateway).await["generation"] == 3).then_some(()) }).await;
    for _ in 0..MESSAGES {
        assert_eq!(client.ask("_").await, "A");
    }
    let shown = compared(&gateway, MESSAGES as u64).await;
    assert_eq!((&shown["same"], &shown["samples"]), (&(MESSAGES as u64).into(), &serde_json::json!([])));
    assert_eq!(gateway.metric("tidegate_plugin_generation", "").await, 1.0);
}

#[tokio::test]
async fn a_shadow_that_fails_or_is_slow_harms_nobody() {
    let hostile = wat("hostile", &[]);
    let gateway = Gateway::start_with(CONFIG, &[("one", wat("mark", &[])), ("next", hostile)]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    assert_eq!(client.ask("t").await, "A");
    let shown = compared(&gateway, 1).await;
    let sample = &shown["samples"][0];
    assert!(sample["shadow"].as_str().unwrap().starts_with(r#"{"failed":{"why":"trap","what":"wasm trap"#), "{sample}");
    // Each of these calls takes the shadow its whole budget: more of them come than may wait.
    const MANY: usize = 400;
    for _ in 0..MANY {
        client.send("loop").await;
    }
    for _ in 0..MANY {
        assert_eq!(client.text().await, "Aoop");
    }
    until("a full queue", || async { (results(&gateway, "dropped").await > 0.0).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "plugin=\"one\"").await, 0.0);
    assert!(gateway.metric("tidegate_plugin_call_failures_total", "plugin=\"one.shadow\"").await > 0.0);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_plugin_breaker_opened_total", "").await, 0.0);
}

#[tokio::test]
async fn a_shadow_writes_nothing() {
    let counter = || wat("counter", &[]);
    let gateway = Gateway::start_with(CONFIG, &[("one", counter()), ("next", counter())]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for count in 1..=9 {
        assert_eq!(client.ask("_").await, count.to_string());
        // One by one, so that the shadow would have written before the next is counted.
        compared(&gateway, count).await;
    }
}

#[tokio::test]
async fn a_sample_is_a_part_of_the_calls() {
    let config = CONFIG.replace("\"next.wasm\"", "\"next.wasm\", sample = 25");
    let gateway = Gateway::start_with(&config, &[("one", wat("mark", &[])), ("next", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..4 * MESSAGES {
        client.ask("_").await;
    }
    assert_eq!(compared(&gateway, MESSAGES as u64).await["same"], MESSAGES as u64);
    let without = CONFIG.replace("shadow = { file = \"next.wasm\" }", "");
    gateway.reconfigure(&without, "applied").await;
    assert_eq!(gateway.admin("/plugins/one/shadow").await.0, 404);
    until("the end of its instances", || async {
        (gateway.metric("tidegate_plugin_instances", "one.shadow").await == 0.0).then_some(())
    })
    .await;
}
