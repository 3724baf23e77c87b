//! The heartbeat: who is silent is pinged and then given up, how far away clients are is measured, and a client that sees no
//! pings may ask for itself.

use crate::support::client::{CLOSE, Client, PING, PONG, Raw, TEXT, frame};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "watched"
path = "/watched"
plugins = ["echo"]
heartbeat = { interval = "500ms", timeout = "3s" }

[[route]]
name = "near"
path = "/near"
plugins = ["echo"]
heartbeat = { interval = "400ms", timeout = "10m", timeout_min = "300ms" }

[[route]]
name = "texts"
path = "/texts"
plugins = ["echo"]
heartbeat = { interval = "1s", timeout = "1s", text = { ping = "ping", pong = "pong" } }
"#;

async fn measured(gateway: &Gateway, route: &str) -> f64 {
    gateway.metric("tidegate_heartbeat_round_trip_seconds_count", &format!("route=\"{route}\"")).await
}

/// The payload of the next ping.
async fn pinged(raw: &mut Raw) -> Vec<u8> {
    let (first, payload) = raw.frame().await.expect("a ping");
    assert_eq!((first, payload.len()), (PING, 4));
    payload
}

#[tokio::test]
async fn the_round_trip_is_measured_by_the_pong_to_the_last_ping() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/watched").await;
    let first = pinged(&mut raw).await;
    // Others are signs of life, and measure nothing.
    raw.send(&[frame(PONG, b""), frame(PONG, b"else")].concat()).await;
    raw.send(&frame(TEXT, b"here")).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"here".to_vec())));
    assert_eq!(measured(&gateway, "watched").await, 0.0);
    raw.send(&[frame(PONG, &first), frame(PONG, &first), frame(TEXT, b"there")].concat()).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"there".to_vec())));
    assert_eq!(measured(&gateway, "watched").await, 1.0, "a pong counts once");
    let second = pinged(&mut raw).await;
    assert_ne!(first, second);
    raw.send(&[frame(PONG, &second), frame(TEXT, b"done")].concat()).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"done".to_vec())));
    assert_eq!(measured(&gateway, "watched").await, 2.0);
}

#[tokio::test]
async fn a_client_that_is_known_to_be_near_is_given_up_sooner() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/near").await;
    for _ in 0..3 {
        let payload = pinged(&mut raw).await;
        raw.send(&frame(PONG, &payload)).await;
    }
    // With the timeout of the route this would take ten minutes.
    pinged(&mut raw).await;
    let (first, payload) = raw.frame().await.expect("a close frame");
    assert_eq!((first, &payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
    assert_eq!(gateway.metric("tidegate_heartbeat_timeouts_total", "").await, 1.0);
}

#[tokio::test]
async fn a_text_that_asks_is_answered_without_a_plugin() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/texts").await;
    raw.send(&[frame(TEXT, b"ping"), frame(TEXT, b"pings"), frame(0x82, b"ping")].concat()).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"pong".to_vec())));
    assert_eq!(raw.frame().await, Some((TEXT, b"pings".to_vec())), "only the text itself");
    assert_eq!(raw.frame().await, Some((0x82, b"ping".to_vec())));
    assert_eq!(gateway.metric("tidegate_messages_received_total", "texts").await, 2.0);
    let calls = |hook| gateway.metric("tidegate_plugin_calls_total", hook);
    let (alone, together) =
        (calls("hook=\"inbound\",plugin=\"echo\"").await, calls("hook=\"batch\",plugin=\"echo\"").await);
    assert_eq!(alone + 2.0 * together, 2.0, "{alone} alone, {together} together");
    // It never answers a ping, and lives by its texts: for longer than the route's interval and timeout.
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(3) {
        pinged(&mut raw).await;
        raw.send(&frame(TEXT, b"ping")).await;
        assert_eq!(raw.frame().await, Some((TEXT, b"pong".to_vec())));
    }
    assert_eq!(gateway.metric("tidegate_heartbeat_timeouts_total", "").await, 0.0);
    // Elsewhere it is a message like any other.
    let mut plain = Client::connect(&gateway.ws_url("/watched")).await;
    assert_eq!(plain.ask("ping").await, "ping");
}

#[tokio::test]
async fn asking_without_end_is_a_flood() {
    let config = CONFIG.replace("name = \"texts\"", "name = \"texts\"\nlimits = { control_rate = 1 }");
    let gateway = Gateway::start(&config).await;
    let mut raw = Raw::connect(gateway.address(), "/texts").await;
    raw.send(&frame(TEXT, b"ping").repeat(1_000)).await;
    assert_eq!(raw.close_code().await, Some(1008));
    assert_eq!(gateway.metric("tidegate_rate_exceeded_total", "rate=\"control\",route=\"texts\"").await, 1.0);
}

#[tokio::test]
async fn who_has_vanished_without_a_word_is_present_no_more() {
    let gateway = Gateway::start(
        r#"
[[topic]]
pattern = "room:*"
presence = true

[[route]]
name = "chat"
path = "/chat/{room}"
plugins = ["jwt-auth", "chat"]
topics = ["room:*"]
heartbeat = { interval = "500ms", timeout = "1s" }

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"

[plugin.chat.grants]
publish = ["room:*"]
subscribe = ["room:*"]
users = true
"#,
    )
    .await;
    let path = |user: &str| format!("/chat/blue?token={}", gateway.token(user));
    let mut stays = Client::connect(&gateway.ws_url(&path("alice"))).await;
    stays.json_of_type("welcome").await;
    // It reads nothing and answers nothing, as a machine does that has lost its network: nobody hears of its end.
    let vanished = Raw::connect(gateway.address(), &path("bob")).await;
    assert_eq!(stays.json_of_type("joined").await["user"], "bob");
    assert_eq!(stays.json_of_type("left").await["user"], "bob");
    until("its session's end", || async { (gateway.metric("tidegate_sessions", "chat").await == 1.0).then_some(()) })
        .await;
    assert_eq!(gateway.metric("tidegate_heartbeat_timeouts_total", "").await, 1.0);
    drop(vanished);
}
