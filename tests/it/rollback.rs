//! Releases that are bad: taken back by themselves where there is something to go back to, not called where there is
//! not.

use serde_json::Value;

use crate::support::client::{Client, Raw, handshake};
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "one"
path = "/one"
plugins = ["one"]
"#;
/// Calls before anything is said about them.
const CALLS: usize = 20;

/// Echoes, and misbehaves when it is told to.
fn good() -> Vec<u8> {
    wat("hostile", &[])
}

/// Traps whatever it is told.
fn bad() -> Vec<u8> {
    wat("hostile", &[("(i32.eq (local.get $letter) (i32.const 116))", "(i32.const 1)")])
}

fn gate(replace: &[(&str, &str)]) -> Vec<u8> {
    wat("gate", replace)
}

async fn plugin(gateway: &Gateway) -> Value {
    let plugins: Value = serde_json::from_str(&gateway.admin("/plugins").await.1).unwrap();
    plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "one").unwrap().clone()
}

async fn rollbacks(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_plugin_rollbacks_total", "plugin=\"one\"").await
}

async fn taken_back(gateway: &Gateway) -> Value {
    until("a rollback", || async { (rollbacks(gateway).await == 1.0).then_some(()) }).await;
    plugin(gateway).await
}

#[tokio::test]
async fn a_release_that_traps_is_taken_back() {
    let gateway = Gateway::start_with(CONFIG, &[("one", good())]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    assert_eq!(client.ask("x").await, "x");
    gateway.replace("one", &bad());
    gateway.generation("one", 2).await;
    assert_eq!(plugin(&gateway).await["former_generation"], 1);
    for _ in 0..CALLS {
        client.send("lost").await;
    }
    let page = taken_back(&gateway).await;
    assert_eq!((&page["generation"], &page["former_generation"]), (&1.into(), &Value::Null));
    let why = page["taken_back"]["why"].as_str().unwrap();
    assert!(why.contains("100 % of 20 calls of `inbound` failed"), "{why}");
    assert!(page["trouble"].as_str().unwrap().starts_with("generation 2 was taken back: "), "{page}");
    gateway.log_line(&["taken back: the former generation serves again", "\"from\":2", "100 % of 20 calls"]).await;
    assert_eq!(client.ask("y").await, "y", "the session has outlived it");
    assert_eq!(gateway.metric("tidegate_plugin_generation", "one").await, 1.0);

    // The same file is not tried again; another one is.
    gateway.replace("one", &bad());
    gateway.log_line(&["the new file cannot serve", "it is the file that was taken back"]).await;
    assert_eq!(client.ask("y").await, "y");
    gateway.replace("one", &wat("mark", &[]));
    gateway.generation("one", 3).await;
    assert_eq!(client.ask("y").await, "A");
    assert!(plugin(&gateway).await["trouble"].is_null());
}

#[tokio::test]
async fn a_release_that_fails_no_more_than_the_one_before_stays() {
    let gateway = Gateway::start_with(CONFIG, &[("one", good())]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    // One message in three fails, on either generation: that is the clients' doing.
    let messages = |client: &'static str| [client, "ok", "ok"].into_iter().cycle().take(6 * CALLS);
    let settings = "[plugin.one.rollback]\nwindow = \"1s\"\n";
    gateway.reconfigure(&format!("{CONFIG}{settings}"), "applied").await;
    for message in messages("error") {
        client.send(message).await;
    }
    for _ in 0..4 * CALLS {
        assert_eq!(client.text().await, "ok");
    }
    gateway.replace("one", &wat("hostile", &[("(i32.const 27)", "(i32.const 10)")]));
    gateway.generation("one", 2).await;
    for message in messages("error") {
        client.send(message).await;
    }
    for _ in 0..4 * CALLS {
        assert_eq!(client.text().await, "ok");
    }
    until("the end of its probation", || async { plugin(&gateway).await["former_generation"].is_null().then_some(()) })
        .await;
    assert_eq!((rollbacks(&gateway).await, plugin(&gateway).await["generation"].as_u64()), (0.0, Some(2)));
    until("the end of the former generation", || async {
        (gateway.metric("tidegate_plugin_instances", "one").await <= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_door_that_fails_or_refuses_everybody_is_taken_back() {
    let cases = [
        ("(nop (; before the answer ;))", "unreachable", 503, "calls of `authenticate` failed"),
        ("(i32.const 2 (; the decision ;))", "(i32.const 1)", 401, "handshakes were not admitted"),
        // Behind the decision "refuse" stands the status.
        (
            "(i32.const 2 (; the decision ;)))\n    (i32.store16 (i32.const 72) (i32.const 0",
            "(i32.const 0))\n    (i32.store16 (i32.const 72) (i32.const 403",
            403,
            "handshakes were not admitted",
        ),
    ];
    for (from, to, status, why) in cases {
        let gateway = Gateway::start_with(CONFIG, &[("one", gate(&[]))]).await;
        for _ in 0..CALLS {
            Client::connect(&gateway.ws_url("/one")).await.close().await;
        }
        gateway.replace("one", &gate(&[(from, to)]));
        gateway.generation("one", 2).await;
        for _ in 0..CALLS {
            assert_eq!(Client::try_connect(&gateway.ws_url("/one"), &[]).await.err(), Some(status));
        }
        let page = taken_back(&gateway).await;
        assert!(page["taken_back"]["why"].as_str().unwrap().contains(why), "{page}");
        assert_eq!(Client::connect(&gateway.ws_url("/one")).await.ask("x").await, "A");
    }
}

#[tokio::test]
async fn of_two_releases_in_a_row_the_last_known_good_one_comes_back() {
    let gateway = Gateway::start_with(CONFIG, &[("one", good())]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    gateway.replace("one", &wat("mark", &[]));
    gateway.generation("one", 2).await;
    assert_eq!(client.ask("x").await, "A");
    gateway.replace("one", &bad());
    gateway.generation("one", 3).await;
    assert_eq!(plugin(&gateway).await["former_generation"], 1, "nobody knows yet how good the second is");
    for _ in 0..CALLS {
        client.send("lost").await;
    }
    assert_eq!(taken_back(&gateway).await["generation"], 1);
    assert_eq!(client.ask("x").await, "x");
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_not_called_and_tried_again() {
    let config = format!("{CONFIG}[plugin.one.breaker]\npause = \"3s\"\n");
    let gateway = Gateway::start_with(&config, &[("one", good())]).await;
    let open = || gateway.metric("tidegate_plugin_breaker_open", "plugin=\"one\"");
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..CALLS {
        client.send("trap").await;
    }
    until("an open breaker", || async { (open().await == 1.0).then_some(()) }).await;
    assert_eq!(plugin(&gateway).await["breaker"], "open");
    gateway.log_line(&["the plugin keeps failing: its breaker is open", "one"]).await;
    // Who comes is told when to come again; who is there has their events fail, and the plugin is not called.
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let mut raw = Raw(stream);
    raw.send(handshake(gateway.address(), "/one").as_bytes()).await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 503") && head.contains("\r\nretry-after: "), "{head}");
    let calls = gateway.metric("tidegate_plugin_calls_total", "one").await;
    client.send("good").await;
    until("a barred call", || async {
        (gateway.metric("tidegate_plugin_call_failures_total", "why=\"open\"").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "one").await, calls);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "one").await, (CALLS + 1) as f64);

    // A probe that fails opens it again, for twice as long; then as many as are asked for go well.
    until("half-open", || async { (plugin(&gateway).await["breaker"] == "half-open").then_some(()) }).await;
    client.send("trap").await;
    until("a second opening", || async {
        (gateway.metric("tidegate_plugin_breaker_opened_total", "one").await == 2.0).then_some(())
    })
    .await;
    until("half-open", || async { (plugin(&gateway).await["breaker"] == "half-open").then_some(()) }).await;
    let mut fresh = Client::connect(&gateway.ws_url("/one")).await;
    assert_eq!(
        (fresh.ask("1").await, fresh.ask("2").await, client.ask("3").await),
        ("1".into(), "2".into(), "3".into())
    );
    assert_eq!((open().await, plugin(&gateway).await["breaker"].as_str()), (0.0, Some("closed")));
    gateway.log_line(&["its breaker is closed", "one"]).await;
}

#[tokio::test]
async fn a_new_file_closes_the_breaker() {
    let gateway = Gateway::start_with(
        &format!("{CONFIG}[plugin.one.breaker]\npause = \"1h\"\npause_max = \"1h\"\n"),
        &[("one", bad())],
    )
    .await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..CALLS {
        client.send("lost").await;
    }
    until("an open breaker", || async { (plugin(&gateway).await["breaker"] == "open").then_some(()) }).await;
    gateway.replace("one", &good());
    gateway.generation("one", 2).await;
    assert_eq!(client.ask("x").await, "x");
    assert_eq!(Client::connect(&gateway.ws_url("/one")).await.ask("x").await, "x");
}

#[tokio::test]
async fn orderly_errors_open_no_breaker() {
    let gateway = Gateway::start_with(CONFIG, &[("one", good())]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..5 * CALLS {
        client.send("error").await;
    }
    assert_eq!(client.ask("x").await, "x");
    // Reading the configuration twice takes longer than from one look at the counts to the next.
    for sessions in [10, 20] {
        gateway.reconfigure(&format!("{CONFIG}limits = {{ sessions = {sessions} }}\n"), "applied").await;
    }
    assert_eq!(gateway.metric("tidegate_plugin_breaker_opened_total", "one").await, 0.0);
    assert_eq!(client.ask("x").await, "x");
}
