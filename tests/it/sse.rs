//! Server-Sent Events: the same sessions, the same hooks, by a response that goes on and by POST.

use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::guests::{RELAY_MAY, relay};
use crate::support::http::ask;
use crate::support::nodes::say;
use crate::support::requests::{Events, post};
use crate::support::{Gateway, PATIENCE, until};

const CONFIG: &str = r#"
[[topic]]
pattern = "log:*"
history = { size = 100, ttl = "1h" }

[[topic]]
pattern = "short:*"
history = { size = 3, ttl = "1h" }

[[topic]]
pattern = "seen:*"
presence = true

[[route]]
name = "relay"
path = "/relay"
plugins = ["relay"]
transports = ["websocket", "sse"]
topics = ["seen:*"]

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
transports = ["sse"]
origins = ["https://page.example"]
heartbeat = { interval = "200ms", timeout = "200ms" }
limits = { message = "1KiB", sessions = 2, outbox = "64KiB" }

[[route]]
name = "open"
path = "/open"
plugins = ["echo"]
transports = ["sse"]
origins = ["*"]
"#;

async fn gateway() -> Gateway {
    Gateway::start_with(&format!("{CONFIG}{RELAY_MAY}"), &[("relay", relay())]).await
}

#[tokio::test]
async fn what_a_session_does_by_frames_it_does_by_events_too() {
    let gateway = gateway().await;
    let mut events = Events::open(gateway.address(), "/relay?user=ann", "").await;
    let id = events.data().await;
    assert!(events.token.starts_with(&id), "the session's id is the first message of this guest");
    let told = events.ask_for("join log:x").await;
    assert!(told.starts_with("subscribed log:x "), "{told}");
    let mut socket = Client::connect(&gateway.ws_url("/relay")).await;
    socket.text().await;
    for number in 1..=20 {
        say(&mut socket, "log:x", &number.to_string()).await;
        assert_eq!(events.data().await, format!("log:x {number} {number}"));
    }
    // Its own publication, and its answer, in the order in which they were asked for.
    events.say("say log:x mine").await;
    let mut both = [events.data().await, events.data().await];
    both.sort();
    assert_eq!(both, ["log:x 21 mine", "ok mine"]);
    assert_eq!(socket.ask("tell ann hello").await, "ok hello");
    assert_eq!(events.data().await, "hello");
    assert_eq!(socket.ask(&format!("to {id} you")).await, "ok you");
    assert_eq!(events.data().await, "you");
    socket.send(&format!("end {id}")).await;
    let close = events.event().await;
    assert_eq!((close.kind.as_str(), close.data.as_deref()), ("close", Some(r#"{"code":4004,"reason":"ended"}"#)));
    assert_eq!(events.next().await, None, "the body has an end");
    until("a session less", || async { (gateway.metric("tidegate_sessions", "relay").await == 1.0).then_some(()) })
        .await;
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"4004\"").await, 1.0);
}

#[tokio::test]
async fn who_comes_back_with_its_last_id_gets_what_it_missed_on_all_its_topics() {
    let gateway = gateway().await;
    let mut socket = Client::connect(&gateway.ws_url("/relay")).await;
    socket.text().await;
    let mut events = Events::open(gateway.address(), "/relay", "").await;
    events.data().await;
    assert!(events.ask_for("join log:x").await.starts_with("subscribed"));
    assert!(events.ask_for("join log:caf\u{e9}=,").await.starts_with("subscribed"));
    say(&mut socket, "log:x", "one").await;
    assert_eq!(events.data().await, "log:x 1 one");
    let id = events.last_id.clone();
    assert_eq!(id.split(',').count(), 2, "one event's id says where the client stands on both: {id}");
    drop(events);
    say(&mut socket, "log:x", "two").await;
    say(&mut socket, "log:caf\u{e9}=,", "three").await;

    let mut events = Events::open(gateway.address(), "/relay", &format!("Last-Event-ID: {id}\r\n")).await;
    events.data().await;
    events.say("join log:x").await;
    assert!(events.data().await.starts_with("recovered log:x "));
    assert_eq!(events.data().await, "log:x 2 two");
    events.say("join log:caf\u{e9}=,").await;
    assert!(events.data().await.starts_with("recovered log:caf\u{e9}=, "));
    assert_eq!(events.data().await, "log:caf\u{e9}=, 1 three");

    // By the query, as polyfills send it; and from an id that the history does not reach any more.
    let mut late = Events::open(gateway.address(), "/relay", "").await;
    late.data().await;
    late.say("join short:x").await;
    late.data().await;
    say(&mut socket, "short:x", "0").await;
    assert_eq!(late.data().await, "short:x 1 0");
    let id = late.last_id.clone();
    drop(late);
    for number in 1..9 {
        say(&mut socket, "short:x", &number.to_string()).await;
    }
    let mut late = Events::open(gateway.address(), &format!("/relay?last-event-id={id}"), "").await;
    late.data().await;
    late.say("join short:x").await;
    assert!(late.data().await.starts_with("gap short:x "), "a loss is told");
    let refused = Events::ask(gateway.address(), "/relay", "Last-Event-ID: made up\r\n").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_its_session_at_once() {
    let gateway = gateway().await;
    let mut socket = Client::connect(&gateway.ws_url("/relay")).await;
    socket.text().await;
    assert!(socket.ask("join log:seen").await.starts_with("subscribed"));
    let mut events = Events::open(gateway.address(), "/relay?user=ann", "").await;
    events.data().await;
    events.say("here seen:x phone").await;
    assert_eq!(socket.text().await, "log:seen 1 +ann-phone-1");
    let token = events.token.clone();
    drop(events);
    assert_eq!(socket.text().await, "log:seen 2 -ann-phone-0");
    let answer = post(gateway.address(), "/relay", &token, "say log:x late").await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"1006\"").await, 1.0);
}

#[tokio::test]
async fn bytes_lines_and_strangers() {
    let gateway = gateway().await;
    let address = gateway.address();
    let mut events = Events::open(address, "/echo", "Origin: https://page.example\r\n").await;
    assert!(events.head.contains("access-control-allow-origin: https://page.example"), "{}", events.head);
    assert!(events.head.contains("access-control-allow-credentials: true"), "{}", events.head);
    assert!(events.head.contains("cache-control: no-store"), "{}", events.head);
    let open = Events::open(address, "/open", "Origin: https://page.example\r\n").await;
    assert!(open.head.contains("access-control-allow-origin: https://page.example"), "{}", open.head);
    assert!(!open.head.contains("access-control-allow-credentials"), "anybody, but not with cookies: {}", open.head);
    for text in ["", "one\ntwo\n", "data: x\n\nevent: close", "\u{1f44b}"] {
        assert_eq!(events.ask_for(text).await, text);
    }
    let token = events.token.clone();
    let send = async |kind: &str, body: &str| {
        ask(address, "POST", "/echo", &[("Tidegate-Session", &token), ("Content-Type", kind)], body).await.status
    };
    assert_eq!(send("application/octet-stream", "\u{0}\u{1}").await, 204);
    let binary = events.event().await;
    assert_eq!((binary.kind.as_str(), binary.data.as_deref()), ("binary", Some("AAE=")));
    assert_eq!(send("application/x-ndjson", "{\"a\":1}\r\n\n{\"b\":2}\n").await, 204);
    assert_eq!([events.data().await, events.data().await], ["{\"a\":1}", "{\"b\":2}"]);
    assert_eq!(send("application/x-ndjson", &"1\n".repeat(65)).await, 413);
    assert_eq!(send("text/plain", &"x".repeat(1025)).await, 413, "a message is as large here as on a socket");

    let mut wrong = token.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == '0' { '1' } else { '0' });
    for stranger in [wrong.as_str(), "x", "", &token[..33]] {
        assert_eq!(post(address, "/echo", stranger, "hello").await.status, 404, "{stranger}");
    }
    let foreign = [("Tidegate-Session", token.as_str()), ("Origin", "https://evil.example")];
    assert_eq!(ask(address, "POST", "/echo", &foreign, "x").await.status, 403);
    let preflight = [
        ("Origin", "https://page.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "tidegate-session"),
    ];
    let allowed = ask(address, "OPTIONS", "/echo", &preflight, "").await;
    assert_eq!((allowed.status, allowed.headers["access-control-allow-headers"].as_str()), (204, "tidegate-session"));
    assert_eq!(ask(address, "PUT", "/echo", &[("Tidegate-Session", &token)], "").await.status, 405);
    assert_eq!(ask(address, "DELETE", "/echo", &[("Tidegate-Session", &token)], "").await.status, 204);
    assert_eq!(events.event().await.kind, "close");

    let plain = ask(address, "GET", "/echo", &[], "").await;
    assert_eq!(plain.status, 406, "this route speaks no WebSocket: {}", plain.body);
    until("the place of the session that has ended", || async {
        (gateway.metric("tidegate_sessions", "route=\"echo\"").await == 0.0).then_some(())
    })
    .await;
    let (_one, _two) = (Events::open(address, "/echo", "").await, Events::open(address, "/echo", "").await);
    let third = Events::ask(address, "/echo", "").await;
    assert_eq!(third.status, 503, "the route has its sessions");
    assert!(third.head.contains("retry-after: "), "{}", third.head);
}

#[tokio::test]
async fn quiet_streams_are_kept_alive_and_stalled_ones_end() {
    let gateway = gateway().await;
    let mut quiet = Events::open(gateway.address(), "/echo", "").await;
    for _ in 0..4 {
        quiet.comment().await;
    }
    assert_eq!(quiet.ask_for("still").await, "still");
    // One that does not read: its own answers fill the way to it, and no comment gets through any more.
    let stalled = Events::open(gateway.address(), "/echo", "").await;
    let body = "x".repeat(1024);
    timeout(PATIENCE, async { while post(gateway.address(), "/echo", &stalled.token, &body).await.status != 404 {} })
        .await
        .expect("the session goes on for ever");
    assert!(gateway.metric("tidegate_closes_total", "route=\"echo\"").await >= 1.0);
    assert_eq!(quiet.ask_for("unhurt").await, "unhurt");
}

#[tokio::test]
async fn a_drain_ends_streams_with_a_word() {
    let mut gateway = gateway().await;
    let mut events = Events::open(gateway.address(), "/relay", "").await;
    events.data().await;
    gateway.terminate();
    let close = events.event().await;
    assert_eq!(close.kind, "close");
    assert!(close.data.unwrap().contains("1012"));
    assert_eq!(events.next().await, None);
    assert!(gateway.ended().await.success());
}
