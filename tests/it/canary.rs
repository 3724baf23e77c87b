//! A second file that serves a share of the sessions: who is in stays in, and it grows only while it is well.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const SESSIONS: usize = 100;

fn config(canary: &str) -> String {
    format!(
        "[[route]]\nname = \"one\"\npath = \"/one\"\nplugins = [\"one\"]\n\n\
         [plugin.one.canary]\nfile = \"next.wasm\"\n{canary}\n"
    )
}

fn mark(letter: u8) -> Vec<u8> {
    wat("mark", &[("65 (; the mark ;)", &letter.to_string())])
}

async fn start(canary: &str) -> Gateway {
    Gateway::start_with(&config(canary), &[("one", mark(b'A')), ("next", mark(b'B'))]).await
}

async fn plugin(gateway: &Gateway) -> Value {
    let plugins: Value = serde_json::from_str(&gateway.admin("/plugins").await.1).unwrap();
    plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "one").unwrap().clone()
}

async fn connect(gateway: &Gateway) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(Client::connect(&gateway.ws_url("/one")).await);
    }
    clients
}

/// Which generation answers whom.
async fn marks(clients: &mut [Client]) -> String {
    let mut marks = String::new();
    for client in clients {
        marks += &client.ask("_").await;
    }
    marks
}

fn canaries(marks: &str) -> usize {
    marks.matches('B').count()
}

#[tokio::test]
async fn a_share_of_the_sessions_is_the_canarys_and_stays_so_while_it_grows() {
    let gateway = start("share = 20").await;
    let mut clients = connect(&gateway).await;
    let first = marks(&mut clients).await;
    // Six standard deviations to each side.
    assert!((1..45).contains(&canaries(&first)), "{first}");
    assert_eq!(marks(&mut clients).await, first, "a session stays where it is");

    let (status, answer) = gateway.admin_post("/plugins/one/canary?share=60", "").await;
    assert_eq!((status, &serde_json::from_str::<Value>(&answer).unwrap()["canary"]["share"]), (200, &60.into()));
    let second = marks(&mut clients).await;
    assert!(canaries(&second) > canaries(&first));
    assert!(first.chars().zip(second.chars()).all(|pair| pair != ('B', 'A')), "{first}\n{second}");
    assert_eq!(gateway.metric("tidegate_plugin_canary_share", "one").await, 60.0);

    gateway.admin_post("/plugins/one/canary/abort", "").await;
    assert_eq!(canaries(&marks(&mut clients).await), 0);
    assert_eq!(plugin(&gateway).await["canary"]["stopped"], "an operator has stopped it");

    gateway.admin_post("/plugins/one/canary/promote", "").await;
    assert_eq!(canaries(&marks(&mut clients).await), SESSIONS);
    let page = plugin(&gateway).await;
    assert_eq!((&page["generation"], &page["former_generation"]), (&2.into(), &1.into()), "promoted like any release");
    assert_eq!(gateway.admin_post("/plugins/one/canary/promote", "").await.0, 409);
    // What serves is put in its place for the next start: that is no new generation.
    gateway.replace("one", &mark(b'B'));
    gateway.replace("next", &mark(b'C'));
    until("the next canary", || async { (plugin(&gateway).await["canary"]["generation"] == 3).then_some(()) }).await;
    let third = marks(&mut clients).await;
    assert!(third.contains('C') && third.contains('B') && !third.contains('A'), "{third}");
    assert_eq!(gateway.metric("tidegate_plugin_generation", "one").await, 2.0);
}

#[tokio::test]
async fn a_canary_that_is_well_gets_more() {
    let gateway = start("schedule = [{ share = 30, for = \"500ms\" }, { share = 100 }]").await;
    let mut clients = connect(&gateway).await;
    // Nobody has called it yet: nothing is known about it.
    assert_eq!(plugin(&gateway).await["canary"]["next_share"], 100);
    gateway.reconfigure(&config("schedule = [{ share = 40, for = \"1ms\" }, { share = 100 }]"), "applied").await;
    assert_eq!(plugin(&gateway).await["canary"]["share"], 40);
    let first = marks(&mut clients).await;
    assert!(canaries(&first) >= 20, "{first}");
    until("everybody", || async { (plugin(&gateway).await["canary"]["share"] == 100).then_some(()) }).await;
    gateway.log_line(&["the canary is well", "100"]).await;
    assert_eq!(canaries(&marks(&mut clients).await), SESSIONS);
    assert_eq!(plugin(&gateway).await["generation"], 1, "it is still a canary");
    assert_eq!(gateway.metric("tidegate_plugin_generation", "one").await, 1.0);
}

#[tokio::test]
async fn a_canary_that_is_worse_serves_nobody_any_more() {
    let bad = wat("hostile", &[("(i32.eq (local.get $letter) (i32.const 116))", "(i32.const 1)")]);
    let gateway = Gateway::start_with(&config("share = 50"), &[("one", mark(b'A')), ("next", bad)]).await;
    let mut clients = connect(&gateway).await;
    for client in &mut clients {
        client.send("_").await;
    }
    let page = until("the canary's end", || async {
        Some(plugin(&gateway).await).filter(|plugin| plugin["canary"]["share"] == 0)
    })
    .await;
    assert!(page["canary"]["stopped"].as_str().unwrap().contains("calls of `inbound` failed"), "{page}");
    assert_eq!(gateway.metric("tidegate_plugin_canary_aborts_total", "one").await, 1.0);
    gateway.log_line(&["the canary is worse than what serves", "one"]).await;
    // The sessions have outlived it, and those who came to no harm have their answer.
    let failed = gateway.metric("tidegate_events_failed_total", "one").await as usize;
    assert!((20..SESSIONS).contains(&failed), "{failed}");
    for client in &mut clients {
        client.send("x").await;
    }
    for client in &mut clients {
        assert_eq!(client.text().await, "A");
    }
    assert_eq!(gateway.metric("tidegate_events_failed_total", "one").await as usize, failed);
    // Another file has another chance; a broken one has none, and what is there stays.
    gateway.replace("next", b"nothing");
    until("the trouble", || async { plugin(&gateway).await["canary"]["trouble"].as_str().map(str::to_owned) }).await;
    gateway.replace("next", &mark(b'B'));
    until("the new canary", || async { (plugin(&gateway).await["canary"]["share"] == 50).then_some(()) }).await;
    assert!(plugin(&gateway).await["canary"]["stopped"].is_null());
}

#[tokio::test]
async fn a_canary_that_cannot_serve_makes_a_bad_configuration() {
    let gateway = start("share = 20").await;
    gateway.replace("other", &wat("refuses", &[]));
    let other = config("share = 20").replace("next.wasm", "other.wasm");
    gateway.reconfigure(&other, "refused").await;
    gateway.log_line(&["the configuration cannot be used", "other.wasm cannot serve", "the licence has run out"]).await;
    assert_eq!(plugin(&gateway).await["canary"]["share"], 20);
    gateway.replace("other", &mark(b'C'));
    until("the other canary", || async {
        plugin(&gateway).await["canary"]["file"].as_str().filter(|file| file.ends_with("other.wasm")).map(drop)
    })
    .await;
}

#[tokio::test]
async fn what_operators_ask_for_must_make_sense() {
    let gateway = start("share = 20").await;
    for (path, status) in [
        ("/plugins/one/canary?share=101", 400),
        ("/plugins/one/canary", 400),
        ("/plugins/two/canary/abort", 404),
        ("/plugins/one/nothing", 404),
        ("/plugins", 405),
    ] {
        assert_eq!(gateway.admin_post(path, "").await.0, status, "{path}");
    }
    let (status, _) = gateway.admin_post("/plugins/one/canary?share=100", "Origin: https://example.org\r\n").await;
    assert_eq!(status, 403, "a web page asks");
    assert_eq!(plugin(&gateway).await["canary"]["share"], 20);
    let none = config("").split("\n[plugin").next().unwrap().to_owned();
    gateway.reconfigure(&none, "applied").await;
    assert_eq!(gateway.admin_post("/plugins/one/canary?share=5", "").await.0, 409);
    assert!(plugin(&gateway).await["canary"].is_null());
}
